FROM a
COPY <<one <<-'two' three /x/
1 $v
one
	2 $v
		x
	two
ADD <<"a b" /f
q
a b
