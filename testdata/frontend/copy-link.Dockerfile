FROM busybox
WORKDIR /w
COPY --link a b sub/
COPY --link --chmod=600 a /m
COPY --link --chown=3:4 --from=kit /srv /srv
FROM scratch
COPY --link a /a
FROM busybox AS last
COPY --from=0 /w /w
COPY --from=1 / /one
