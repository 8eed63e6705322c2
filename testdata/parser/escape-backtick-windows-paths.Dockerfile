# escape=`
FROM busybox
COPY a c:\dir\
RUN b `
  `
  c
ENV P=c:\x` y
