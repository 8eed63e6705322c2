FROM busybox
HEALTHCHECK --timeout=1h1m1.5s --start-period=0s --start-interval=1ms CMD echo  "two  spaces"
HEALTHCHECK NONE
