FROM busybox
RUN 3<<A 10<<-B 007<<C cat <&3 <&10
a
A
	b
	B
c
C
