FROM busybox AS a
EXPOSE x
STOPSIGNAL y
FROM a
COPY --chmod=8 a b
