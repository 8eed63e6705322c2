FROM busybox
RUN a \

   
 b
ENV c=d \


  e=f
