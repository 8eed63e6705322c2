FROM missing AS never
RUN echo $ UNDEFINED
FROM busybox AS one
RUN echo 1
FROM one AS two
RUN echo 2
FROM two
RUN echo 3
#: --target ONE
