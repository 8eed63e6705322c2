FROM busybox
SHELL ["/bin/ash", "-c"]
RUN <<-EOF
	#!/bin/sh
	echo tab
	EOF
RUN <<'a/b'
#!/usr/bin/env x
$Y
a/b
RUN <<EOF
 #!/bin/sh
EOF
RUN <<EOF

echo after a blank line
EOF
