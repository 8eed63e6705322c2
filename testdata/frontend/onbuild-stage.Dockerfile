FROM busybox AS tools
RUN touch /tool
FROM busybox AS base
ONBUILD COPY --from=tools /tool /tool
ONBUILD RUN <<EOF
cat /tool
EOF
ONBUILD ENV LATE=$VALUE
FROM base AS child
ARG VALUE=unseen
RUN echo "$LATE"
FROM child
RUN echo grandchild
