FROM scratch
COPY a /
#: --context https://u:p@h/r.git?ref=a#b
