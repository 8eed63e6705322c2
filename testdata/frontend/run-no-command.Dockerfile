FROM busybox
RUN
RUN --network=none
