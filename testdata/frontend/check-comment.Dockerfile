FROM busybox
# check=skip=UndefinedVar
WORKDIR /$NOPE
COPY a $NOPE
