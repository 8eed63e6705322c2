FROM alpine AS one
COPY --from=gone / /
FROM scratch AS two
#: --build-context alpine=target:oen --build-context gone=target:missing
