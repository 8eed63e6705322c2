FROM busybox AS a
HEALTHCHECK --interval=5s --retries=3 CMD ["x"]
FROM a
HEALTHCHECK --timeout=1s CMD y
FROM a AS none
HEALTHCHECK NONE
#: --target none
