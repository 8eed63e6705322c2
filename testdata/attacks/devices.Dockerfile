# Devices of the machine, by nodes that come with an image or that a step makes.
FROM busybox AS nodes
ADD node.tar /
FROM busybox
COPY --from=nodes /node /copied
ADD node.tar /
RUN read_from() { echo "out: $1 $(head -c 1 $2 2> /dev/null | wc -c)"; }; \
    read_from image /node; read_from copied /copied; mknod /made c 1 9; read_from made /made
RUN --mount=type=cache,target=/c --mount=type=bind,from=nodes,target=/b,rw --mount=type=tmpfs,target=/t \
    read_from() { echo "out: $1 $(head -c 1 $2 2> /dev/null | wc -c)"; }; \
    mknod /c/node c 1 9; read_from cache /c/node; read_from bound /b/node; \
    mknod /t/node c 1 9; read_from memory /t/node; read_from dev /dev/urandom
