# check=experimental=all;error=true
# wrong words
ARG A
FROM busybox
