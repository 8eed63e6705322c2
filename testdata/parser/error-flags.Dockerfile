FROM --plattform=x a
RUN --network --mount=type=bind --network=none --network=none x
COPY --link=maybe --link= --from a b
COPY --chown=1 --chown=2 a b
USER --x u
WORKDIR --xyz
