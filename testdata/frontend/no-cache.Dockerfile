FROM busybox AS a
RUN echo 1
COPY x /x
WORKDIR /w
FROM a AS b
RUN echo 2
#: --no-cache-filter A
