ARG P=linux/amd64 I=busybox
FROM --platform=${P} ${I}
ARG X=x M=644 O=1:2 S=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
ENV $X=$X ${X}2="$X"
LABEL $X=$X
WORKDIR /$X
USER $X
STOPSIGNAL ${SIG:-9}
VOLUME /$X ["$X"]
VOLUME ["/j$X"]
EXPOSE $X0 ${X/x/81}
COPY --chown=$O --chmod=$M --exclude=$X $X a$X /$X/
COPY ["$X", "/$X y/"]
ADD --checksum=$S --chown=$O https://example.org/$X /$X/
RUN --mount=type=cache,target=/$X,id=$X,uid=${U:-3} --mount=type=bind,source=$X,target=/b$X --network=none echo $X
