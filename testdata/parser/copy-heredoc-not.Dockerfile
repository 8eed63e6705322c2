FROM busybox
COPY a<<b /x
COPY <<<c /y
COPY \<<d /z
