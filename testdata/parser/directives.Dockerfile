# syntax=docker/dockerfile:1 more
#Escape = `
# check=skip=JSONArgsRecommended;error=true rest
FROM a
RUN a `
 b
