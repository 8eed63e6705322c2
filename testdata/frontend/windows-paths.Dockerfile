# escape=`
FROM busybox
ENV D=C:\temp\new E=a`
b
WORKDIR /w\x
RUN echo `
 x
