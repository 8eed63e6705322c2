FROM busybox
RUN <<EOF
echo one
echo $TWO
EOF
RUN <<-'X'
	echo tab
	X
RUN <<SCRIPT
#!/usr/bin/env python
print(1)
SCRIPT
RUN cat <<A - <<"B" > /x
a
A
b
B
