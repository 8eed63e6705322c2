 # check=skip=all
FROM busybox AS Base
CMD x
