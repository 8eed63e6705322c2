# escape=x
FROM a
RUN
