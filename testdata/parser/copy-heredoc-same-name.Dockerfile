FROM busybox
COPY <<a <<a /x
1
a
2
a
