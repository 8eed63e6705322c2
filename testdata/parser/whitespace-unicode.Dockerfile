 FROM busybox　
RUN	 a b  
ENV a=b c=d
USER  u v 
