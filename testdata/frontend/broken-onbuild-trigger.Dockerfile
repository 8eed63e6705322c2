FROM busybox AS base
ONBUILD RUN --mount=type=nope true
ONBUILD COPY --nope a b
FROM base
