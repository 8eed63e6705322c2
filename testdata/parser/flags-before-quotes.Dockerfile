FROM busybox
COPY --chown=1 "--link" --parents /x/
RUN --network=none "--mount=x"
RUN -x --mount=y
