FROM busybox
ENV A=x
WORKDIR /a
WORKDIR /b
WORKDIR /c
WORKDIR /d
WORKDIR /e
WORKDIR /f
COPY "$A" $UNSET /g/
run echo "$A" '\$A' ${UNSET:-d}
WORKDIR /h
