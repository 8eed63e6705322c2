FROM a
COPY ["<<EOF", "/x"]
USER u
