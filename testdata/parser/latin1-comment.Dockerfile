# café
FROM busybox
RUN x \
# été
  y
