FROM busybox
ARG --x A
STOPSIGNAL --x 9
