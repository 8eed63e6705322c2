FROM busybox
# check=skip=all
# doc for run
RUN x
