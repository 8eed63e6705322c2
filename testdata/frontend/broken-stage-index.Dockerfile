FROM busybox
COPY --from=3 a b
COPY --from=-1 a b
