FROM busybox
EXPOSE 80 	 81/udp   82-84
EXPOSE "90" '91' $p ${q:-92}
