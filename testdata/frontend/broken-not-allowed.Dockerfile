FROM busybox
RUN --network=host true
RUN --security=insecure true
