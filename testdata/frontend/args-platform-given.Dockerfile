FROM --platform=$BUILDPLATFORM multi
ARG TARGETARCH BUILDOS TARGETSTAGE=mine
RUN echo
#: --build-arg TARGETARCH=odd --build-arg BUILDPLATFORM=linux/arm64
