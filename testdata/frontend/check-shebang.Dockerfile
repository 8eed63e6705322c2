#!/usr/bin/env build
# check=skip=all
FROM busybox AS Base
CMD x
