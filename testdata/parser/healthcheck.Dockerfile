FROM busybox
HEALTHCHECK none
HEALTHCHECK --timeout=1.5s --start-period=0 --start-interval=1h --retries= cmd ["a", "b"]
HEALTHCHECK --x NONE
