FROM scratch
COPY a /
#: --context github.com/o/r --build-arg SOURCE_DATE_EPOCH=5 --build-arg BUILDKIT_CONTEXT_KEEP_GIT_DIR=1
