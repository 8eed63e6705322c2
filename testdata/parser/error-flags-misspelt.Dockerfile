FROM a
RUN --nework=none --mounts=type=tmpfs,target=/x --securty=sandbox x
COPY --frm=x --chow=1 --chmd=2 --exlude=x --parent a b
ADD --keep-gitdir --cheksum=x a b
HEALTHCHECK --intervall=1s --timout=1s --retry=1 --start-perod=1s CMD x
