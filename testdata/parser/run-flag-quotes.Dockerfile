FROM busybox
RUN --mount="type=secret,id=a b" --mount=type=tmpfs,target=/a\ b x
