FROM busybox
COPY a /
RUN --mount=target=/in x
#: --context empty
