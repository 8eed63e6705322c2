FROM --Platform=linux/amd64 a
RUN --MOUNT=type=tmpfs,target=/x y
COPY --Link a b
