# other=1
# escape=`
FROM busybox
RUN x \
 y
