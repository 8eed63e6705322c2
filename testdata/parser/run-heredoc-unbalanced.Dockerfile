FROM busybox
RUN echo "it is" <<EOF it's
USER u
RUN <<"EOF
RUN echo \" <<EOF
x
EOF
