FROM busybox
RUN <<-EOF
		a
	 b
	EOF
RUN <<- EOF
	c
EOF
