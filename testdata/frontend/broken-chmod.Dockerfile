FROM busybox
COPY --chmod=99999 a b
COPY --chmod=u+q a b
ADD --chmod=10000 a b
