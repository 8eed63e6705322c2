FROM busybox
RUN <<EOF
# not a comment
echo $x \

  EOF
EOF 
EOF
USER u
