FROM busybox
# before
RUN <<EOF
# inside
#
EOF
# between

# after a blank line
USER u
