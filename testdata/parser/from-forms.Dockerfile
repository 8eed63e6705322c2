ARG V=latest
FROM busybox:$V
FROM --platform=linux/arm64 kit as c
FROM scratch AS d-e_f.1
COPY --from=0 /x /x
COPY --from=c /y /y
