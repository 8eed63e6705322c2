FROM busybox
COPY https://example.org/x /x
COPY git@github.com:a/b.git /y
COPY https://example.org/x.git /y
