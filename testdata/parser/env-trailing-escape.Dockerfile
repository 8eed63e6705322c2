FROM busybox
ENV a=b \
ENV c="d" e=\  f=g
LABEL h=i\
