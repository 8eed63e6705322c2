# café
FROM a
RUN x \
# été
  y
