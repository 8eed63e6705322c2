# syntax=docker/dockerfile:1 more
#Escape = `
# check=skip=JSONArgsRecommended;error=true rest
FROM busybox
RUN a `
 b
