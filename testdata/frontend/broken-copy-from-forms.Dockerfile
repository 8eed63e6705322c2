FROM busybox AS one
COPY --from=1 a b
COPY --from=0 a b
COPY --from=00 a b
COPY --from=99999999999999999999 a b
COPY --from=Up:per@x a b
