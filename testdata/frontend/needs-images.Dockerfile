FROM ghcr.io/a/b:1@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 AS tools
FROM busybox AS unused
COPY --from=not-needed /x /x
FROM alpin
COPY --from=tools /x /x
COPY --from=toolz /y /y
RUN --mount=from=localhost:5000/m,target=/m true
