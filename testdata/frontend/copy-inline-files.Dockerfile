FROM busybox
ENV X=1
COPY <<one <<'two' plain /dir/
x=$X \$X "q" ${NOPE}
one
$X
two
ADD <<-tabs /t
		tab
	tabs
