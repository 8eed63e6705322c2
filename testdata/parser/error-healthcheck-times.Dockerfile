FROM a
HEALTHCHECK --interval=1 CMD x
HEALTHCHECK --timeout=1d CMD x
HEALTHCHECK --start-period=-5s CMD x
HEALTHCHECK --start-interval=9999999h CMD x
HEALTHCHECK --interval=1ns CMD x
HEALTHCHECK --retries=1.5 CMD x
HEALTHCHECK --retries=99999999999 CMD x
HEALTHCHECK --retries=-1 --start-interval=x CMD y
