FROM busybox
RUN --mount=type=cache,target=/c --mount=type=bind,from=kit,target=/b --network=none --security=insecure --device=x,required y --z
RUN --network=host
RUN -- --x
#: --allow network.host --allow security.insecure --allow device
