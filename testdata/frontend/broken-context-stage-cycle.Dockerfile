FROM alpine AS base
FROM scratch
COPY --from=base / /
#: --build-context alpine=target:base
