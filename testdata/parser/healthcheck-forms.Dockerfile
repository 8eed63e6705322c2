FROM busybox
HEALTHCHECK --interval=1h2m3.5s --timeout=500ms --start-period=1us1ms --start-interval=0 --retries=0 CMD ["a"]
HEALTHCHECK	cmd  a  b
HEALTHCHECK CMD ["a" b]
HEALTHCHECK --retries=007 --timeout=+1s CMD --x
