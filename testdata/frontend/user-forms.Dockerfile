FROM busybox
USER 0
RUN one
USER app:staff
WORKDIR /w
USER "a b"
RUN two
USER ""
RUN three
