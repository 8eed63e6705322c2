FROM busybox
RUN echo 1
WORKDIR /w
COPY x /x
#: --no-cache
