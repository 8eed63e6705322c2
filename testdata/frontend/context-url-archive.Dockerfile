FROM scratch
COPY a /
COPY b /
#: --context https://example.org/src.tar
