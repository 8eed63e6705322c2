FROM	a
	RUN  x  y 
  USER  u  
