FROM scratch
COPY a /
RUN --mount=target=/in ["x"]
#: --context https://u:p@h/r.git#main:sub
