# Files with several names of layers that others have too.
FROM busybox AS a
RUN echo one > /f && ln /f /g && chmod 600 /f
RUN echo two >> /f && truncate -s 0 /g && chmod 777 /g
FROM busybox
COPY --from=a /f /x/f
RUN echo three > /x/f && chmod 777 /x/f
RUN --mount=type=bind,from=a,target=/m,rw echo four > /m/f; rm /m/g; true
