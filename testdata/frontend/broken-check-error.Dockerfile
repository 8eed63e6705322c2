# check=error=true
FROM busybox AS Base
CMD x
