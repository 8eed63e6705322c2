FROM busybox
RUN <<Dockerfile cat > /Dockerfile
FROM x
RUN <<EOF
y
EOF
# comment \
Dockerfile
USER u
