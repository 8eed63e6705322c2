FROM busybox
RUN echo 1
ARG HTTP_PROXY
RUN echo 2
#: --build-arg HTTP_PROXY=http://p:1 --build-arg no_proxy=x
