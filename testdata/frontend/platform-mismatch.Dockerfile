FROM busybox
RUN true
#: --platform linux/arm64
