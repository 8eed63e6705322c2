# check=skip=all
FROM busybox AS Base
CMD x
#: --build-arg BUILDKIT_DOCKERFILE_CHECK=skip=StageNameCasing
