FROM a
RUN x \
  <<EOF \
  && y
body
EOF
USER u
