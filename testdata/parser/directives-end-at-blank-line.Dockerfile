# syntax=a

# escape=`
FROM a
COPY a `
