FROM busybox
#: --build-arg BUILDKIT_DISABLE_FILEOP=1
