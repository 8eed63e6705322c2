FROM busybox
RUN --mount=type=tmpfs,target=/t --network=none <<EOF
a
EOF
RUN --mount='type=secret,id=<<X' <<Y
b
Y
