FROM a
COPY
COPY a
ADD a
COPY ["a"]
ADD []
COPY --from=b
ADD --chown=1 a
COPY <<X
x
X
