# escape=`
FROM scratch
