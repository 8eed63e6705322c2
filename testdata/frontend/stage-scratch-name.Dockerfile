FROM busybox AS scratch
RUN touch /x
FROM scratch
RUN touch /y
