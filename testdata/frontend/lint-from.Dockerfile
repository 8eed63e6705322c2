ARG TAG=:
ARG GOOD=busybox
FROM --platform=$TARGETPLATFORM busybox AS a
FROM --platform=linux/amd64 $GOOD AS b
FROM --platform=linux/amd64 busybox AS b-amd64
FROM ${GOOD}${GOO} AS b
FROM bu$TAG
COPY --from=a /x /x
#: --build-arg TAG=sybox
