FROM --platform= busybox
COPY --from= --chown= --chmod= --exclude= a b
ADD --checksum= --chown= a b
RUN --device= x
HEALTHCHECK --interval= --retries= CMD x
