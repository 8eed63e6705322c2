FROM busybox
ENV "a b" c
ENV "d=e" f=g
LABEL 'h=i'
ARG "j=k"
