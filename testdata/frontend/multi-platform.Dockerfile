FROM --platform=$BUILDPLATFORM multi AS build
ARG TARGETARCH
RUN echo $TARGETARCH > /arch
RUN echo same
FROM --platform=$BUILDPLATFORM busybox AS shared
RUN echo shared
COPY ctx /ctx
FROM multi
COPY --from=build /arch /arch
COPY --from=shared /ctx /ctx
COPY other /
#: --platform linux/amd64,linux/arm64
