# Files with several names of layers that others have too.
FROM busybox AS a
RUN echo one > /f && ln /f /g && chmod 600 /f
FROM scratch AS one
COPY --from=a /f /g /
FROM a
RUN echo two >> /f && truncate -s 0 /g && chmod 777 /g
FROM busybox
COPY --from=one /f /x/f
RUN echo three > /x/f && chmod 777 /x/f
RUN --mount=type=bind,from=a,target=/m,rw echo four > /m/f; rm /m/g; true
RUN --mount=type=bind,from=one,target=/m echo five > /m/f; chmod 777 /m/g; ln /m/g /m/h; ln /m/f /h; echo six > /h; rm /m/f; true
RUN --mount=type=bind,from=one,target=/m,rw echo seven > /m/f; ln /m/f /m/h; echo eight > /m/h; rm /m/g; true
