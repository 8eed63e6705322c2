FROM busybox AS Base
#: --build-arg BUILDKIT_DOCKERFILE_CHECK=error=true
