FROM busybox
ENV a b=c
ENV d= e=f
ENV "g h"=i "j"=k
