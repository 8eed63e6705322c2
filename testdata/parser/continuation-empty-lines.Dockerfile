FROM a
RUN a \

   
 b
ENV c=d \


  e=f
