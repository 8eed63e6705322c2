# escape=`
FROM a
COPY a c:\dir\
RUN b `
  `
  c
ENV P=c:\x` y
