FROM a
HEALTHCHECK
HEALTHCHECK CMD
HEALTHCHECK NONE x
HEALTHCHECK EXEC x
HEALTHCHECK CMD []
HEALTHCHECK --interval=5 --timeout=1us --start-period=-1s --start-interval=x --retries=-1 CMD y
HEALTHCHECK --retries=x --intervall=1s CMD y
