# Hello
# escape=`
FROM busybox
RUN `
