FROM busybox
RUN <<EOF
a

b \
EOF
USER u
