FROM busybox
ENV a=b \

# comment

  c=d \
   # another

  e=f
RUN x \

#y
 z
