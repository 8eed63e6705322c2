FROM busybox
CMD ["a\"b", "c\\d", "e\tf\u0001\n", "é 日", "\u00a0\u2028", "<&>"]
ENTRYPOINT echo "x" \\ 	'y'
SHELL ["/bin/ba sh", "-c\"x"]
HEALTHCHECK --interval=1.5h CMD echo "x y"
LABEL "a b"="c \"d\"" e="	"
ENV F="g h" I=
RUN <<EOF
echo "a"
	b
EOF
