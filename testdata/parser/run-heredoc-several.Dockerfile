FROM busybox
RUN <<A cat - 3<<B > /x
a
A
b
B
RUN << A
A
