FROM busybox
RUN <<../../etc/x
#!/bin/sh
../../etc/x
COPY <<../up /dst/
up
../up
RUN --mount=type=secret,id=.. true
