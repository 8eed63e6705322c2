FROM alpine AS app
COPY --from=files /out /app
RUN --mount=from=files,target=/in true
FROM other AS replaced
RUN never
FROM busybox AS base
ENV FROM_BASE=1
ONBUILD ENV TRIGGERED=1
WORKDIR /out
FROM app
COPY --from=replaced / /r
#: --build-context alpine=target:Base --build-context files=target:base --build-context replaced=target:base
