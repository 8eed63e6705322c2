FROM busybox
LABEL "$X"=1
