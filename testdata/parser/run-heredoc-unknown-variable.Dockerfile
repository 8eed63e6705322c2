FROM busybox
RUN echo ${x:-<<A} $y <<${z}
1
${z}
RUN echo ${ <<B
