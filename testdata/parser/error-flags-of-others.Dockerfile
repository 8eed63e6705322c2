FROM a
ENV --x a=b
LABEL --x a=b
CMD --x y
ENTRYPOINT --x y
EXPOSE --x 1
VOLUME --x /y
SHELL --x ["y"]
MAINTAINER --x y
HEALTHCHECK --x CMD y
ADD --from=x a b
COPY --checksum=x --unpack a b
