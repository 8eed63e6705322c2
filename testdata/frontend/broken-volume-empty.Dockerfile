FROM busybox
VOLUME "$X"
