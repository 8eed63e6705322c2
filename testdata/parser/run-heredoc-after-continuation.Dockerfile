FROM busybox
RUN x \
  <<EOF \
  && y
body
EOF
USER u
