FROM	busybox
	RUN  x  y 
  USER  u  
