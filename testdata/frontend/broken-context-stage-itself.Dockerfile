FROM busybox AS base
FROM base
#: --build-context base=target:base
