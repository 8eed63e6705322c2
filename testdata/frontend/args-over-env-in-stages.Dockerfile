FROM busybox AS parent
ENV E=2 K=keep
ARG E=3 A=plain
RUN echo $E
FROM parent
RUN echo $E $A
ARG A
RUN echo again
