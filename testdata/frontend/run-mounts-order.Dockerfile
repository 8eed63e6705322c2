FROM busybox
WORKDIR /w
RUN --mount=target=/z --mount=type=tmpfs,target=/a/b --mount=type=tmpfs,target=/a --mount=type=cache,target=/a/b/c --mount=target=x true
RUN --mount=type=cache --mount=type=bind true
