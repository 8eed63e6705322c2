FROM Busybox AS a
FROM busybox: AS b
FROM busybox@sha256:short AS c
FROM http://busybox AS d
FROM -x AS e
FROM a//b AS f
FROM scratch
COPY --from=a / /
COPY --from=b / /
COPY --from=c / /
COPY --from=d / /
COPY --from=e / /
COPY --from=f / /
