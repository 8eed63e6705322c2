FROM a
COPY a b \
# comment
RUN x
EXPOSE \
  80 \
USER u
SHELL ["a"] \
USER v
