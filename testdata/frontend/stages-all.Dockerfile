FROM busybox AS one
RUN echo $A
COPY $B /b
FROM busybox
#: --all-stages
