FROM a
VOLUME ["/a", " ", ""]
