FROM busybox
ENV M=640
COPY --chmod=755 a /a
COPY --chmod=$M a /b
COPY --chmod=u+x,go=rX a /c
