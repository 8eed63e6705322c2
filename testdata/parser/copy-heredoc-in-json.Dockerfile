FROM busybox
COPY ["<<EOF", "/x"]
USER u
