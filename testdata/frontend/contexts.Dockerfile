FROM busybox AS prep
RUN exit 1
FROM side AS data
FROM alpine:3
COPY --from=prep /p /p
COPY --from=data /sub/f /f
COPY --from=side /other /other
RUN --mount=from=side,source=third,target=/m true
COPY --from=tool /bin/t /bin/t
#: --build-context prep=/some/folder --build-context side=/other/folder --build-context alpine:3=docker-image://busybox --build-context tool::linux/amd64=docker-image://kit
