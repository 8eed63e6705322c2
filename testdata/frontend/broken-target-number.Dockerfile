FROM busybox AS base
FROM busybox AS other
#: --target 0
