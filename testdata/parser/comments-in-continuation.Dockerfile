FROM busybox
RUN one \
# comment
  # indented
  two \

  three
# base: x
USER u
