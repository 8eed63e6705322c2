# first
#
# second

  # indented
FROM busybox
RUN b # not a comment
# gone at the end
