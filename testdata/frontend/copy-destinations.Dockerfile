FROM busybox
ENV D=made
COPY a .
COPY a ""
COPY a dir/
WORKDIR /w
COPY a x/../y/.
COPY a $D
COPY a /abs/
COPY a ..
COPY ["with space", "/to here/"]
COPY $UNSET /all
