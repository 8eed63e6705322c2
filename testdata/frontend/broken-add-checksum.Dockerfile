FROM busybox
ADD --checksum=sha256:00 a b /c/
ADD --checksum=sha256:00 a /c
ADD --checksum=sha256:00 https://example.org/x /c
