FROM --platform a
COPY --chown a b
RUN --security x
ADD --checksum --exclude a b
HEALTHCHECK --interval CMD x
