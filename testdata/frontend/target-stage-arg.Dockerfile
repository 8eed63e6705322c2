ARG NAME=${TARGETSTAGE}
FROM busybox AS x-last
ARG NAME
ARG TARGETSTAGE
RUN echo $NAME
FROM busybox AS last
FROM x-${TARGETSTAGE}
#: --target last
