FROM busybox
RUN <<E"O"F
x
EOF
RUN <<\A
y
A
RUN <<$V
z
$V
