FROM busybox AS b
FROM busybox
WORKDIR /w
ENV DIR=in
RUN --mount=source=$DIR,target=/in --mount=type=bind,target=rel,rw --mount=from=b,source=/x,target=/x true
RUN --mount=type=tmpfs,target=/t,size=10m --mount=type=tmpfs,target=/a true
RUN --mount=from=scratch,target=/e ls /e
