FROM busybox
COPY "a b" /c
ADD <<"d e" /f
q
d e
