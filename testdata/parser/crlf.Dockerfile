# escape=`
FROM busybox
RUN x `
  y

COPY <<E /f
one
two
E
USER u
