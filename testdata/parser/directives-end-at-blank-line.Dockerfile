# syntax=a

# escape=`
FROM busybox
COPY a `
