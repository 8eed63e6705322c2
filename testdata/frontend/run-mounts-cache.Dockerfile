FROM busybox AS seed
FROM busybox
WORKDIR /w
RUN --mount=type=cache,target=/root/.cache/ true
RUN --mount=type=cache,target=rel,sharing=locked true
RUN --mount=type=cache,id=x,target=/c,sharing=private,from=seed,source=/s true
RUN --mount=type=cache,target=/o,uid=1,mode=0700 --mount=type=cache,target=/p,gid=2,from=seed true
RUN --mount=type=cache,target=/q,source=sub,uid=9 true
#: --build-arg BUILDKIT_CACHE_MOUNT_NS=ns
