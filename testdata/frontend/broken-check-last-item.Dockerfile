# check=skip=A; error=true
FROM busybox
