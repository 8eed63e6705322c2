# check=skip=A;colour=red
FROM busybox
