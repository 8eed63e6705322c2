FROM a
VOLUME [ ]
VOLUME ["/a", 1]
VOLUME ["", "/b", " "]
