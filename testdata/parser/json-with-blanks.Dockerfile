FROM busybox
RUN   [ "a" ,\
  "b" ]  
VOLUME	["/x"]
SHELL ["/bin/sh",\
# in between
 "-c"]
