FROM a
RUN <<-EOF
		a
	 b
	EOF
RUN <<- EOF
	c
EOF
