FROM busybox
ONBUILD COPY <<-A <<B /x/
	a
	A
b
B
USER u
