FROM busybox
ENV d "e  f" g
ENV h	i=j
ENV k 'l m' \n
