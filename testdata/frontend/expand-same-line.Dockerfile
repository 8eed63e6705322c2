FROM busybox
ENV a=1
ENV a=2 b=$a c=${b:-unset}
ARG d=1
ARG d=2 e=$d f=${e}3
RUN true
