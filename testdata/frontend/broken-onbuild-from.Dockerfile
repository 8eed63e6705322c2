FROM busybox AS base
ONBUILD COPY --from=9 a b
ONBUILD ENV a=${
FROM base
