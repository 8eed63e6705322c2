FROM a
COPY --link=yes a b
COPY --parents= a b
ADD --keep-git-dir=1 a b
ADD --unpack=TRUE --unpack=false a b
