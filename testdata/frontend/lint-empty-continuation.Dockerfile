FROM busybox
RUN a \

  b
COPY <<x \

  /x
x
