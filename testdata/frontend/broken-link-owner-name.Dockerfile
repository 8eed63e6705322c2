FROM busybox
COPY --link --chown=app a b
