# Hello
# escape=`
FROM a
RUN `
