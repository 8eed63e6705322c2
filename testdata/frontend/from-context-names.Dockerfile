FROM docker.io/library/alpine:latest AS a
FROM alpine AS b
COPY --from=alpine:latest /x /x
FROM a
COPY --from=b /x /x
#: --build-context alpine=docker-image://kit
