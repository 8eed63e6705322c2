FROM busybox
ENV a  b  c=d 
ENV e =f
LABEL g h i
