FROM busybox
COPY <<one <<-'two' three /x/
1 $v
one
	2 $v
		x
	two
ADD <<"a" /f
q $v
a
