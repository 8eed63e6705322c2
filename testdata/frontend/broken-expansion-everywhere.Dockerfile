FROM busybox
ARG A=${
ENV ${=1
LABEL a="
WORKDIR ${
USER "
STOPSIGNAL ${
VOLUME ["${"]
EXPOSE ${
COPY ${ /x
ADD a ${
RUN --mount=type=cache,target=/${ true
