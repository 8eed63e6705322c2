FROM busybox
RUN a \ 	 
  b
RUN c \\ 

RUN d\ e\
 f
