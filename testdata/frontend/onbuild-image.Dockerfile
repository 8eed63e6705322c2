FROM onbuild AS a
RUN echo after
FROM a
RUN echo not again
