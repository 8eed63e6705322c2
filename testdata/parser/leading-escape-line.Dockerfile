\
FROM busybox
