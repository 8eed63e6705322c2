FROM a
RUN --mount=type=cache,target=/c --mount=type=bind,from=base,target=/b --network=none --security=insecure --device=x,required y --z
RUN --network=host
RUN -- --x
