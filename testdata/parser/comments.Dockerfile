# first
#
# second

  # indented
FROM a
RUN b # not a comment
# gone at the end
