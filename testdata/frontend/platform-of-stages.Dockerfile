FROM --platform=$BUILDPLATFORM busybox AS tools
RUN echo tools
FROM tools AS more
RUN echo more
FROM --platform=linux/arm64 tools AS ignored-arm64
RUN echo ignored
FROM scratch
COPY --from=more / /
COPY --from=ignored-arm64 / /
#: --platform linux/arm64,linux/arm/v7
