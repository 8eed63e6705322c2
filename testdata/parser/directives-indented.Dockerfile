 # check=skip=all
  # escape=`
FROM busybox AS Base
RUN a `
  b
