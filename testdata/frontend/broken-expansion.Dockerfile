FROM busybox
ENV A="open
WORKDIR ${MISSING:?please give}
LABEL a=${x!y}
COPY a ${
USER $'
