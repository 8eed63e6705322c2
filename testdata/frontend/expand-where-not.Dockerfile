FROM busybox
ARG X=x
COPY --exclude=$X a b
RUN echo $X
RUN ["echo", "$X"]
CMD echo $X
ENTRYPOINT ["$X"]
SHELL ["$X"]
HEALTHCHECK CMD echo $X
MAINTAINER $X
ONBUILD RUN echo $X
