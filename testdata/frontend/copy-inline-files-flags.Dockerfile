FROM busybox
ENV X=1 D=dir
COPY --chown=1:2 --chmod=700 --link=false <<a <<-b /$D/
\$X \\ \n "$X" '$X' ${NONE:-d} $
a
		two
	b
COPY --link <<"cd" /c
	$X
cd
ADD --chmod=u=rw <<e f /e/
e
