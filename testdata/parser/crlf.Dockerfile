# escape=`
FROM a
RUN x `
  y

COPY <<E /f
one
two
E
USER u
