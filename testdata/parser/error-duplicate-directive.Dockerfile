# escape=\
# ESCAPE=`
FROM a
