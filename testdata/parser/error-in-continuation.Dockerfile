FROM a
RUN \
  # note
  --mount=type=cache \
  --networkk=none \
  x
