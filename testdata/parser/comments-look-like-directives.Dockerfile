FROM busybox
# escape=`
# syntax=x
RUN a \
# check=skip=all
 b
