FROM busybox AS a
COPY --from=c /x /x
FROM a AS b
FROM busybox AS c
RUN --mount=from=b,target=/b true
