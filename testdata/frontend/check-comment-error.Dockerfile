FROM busybox
# check=skip=JSONArgsRecommended;error=true
CMD x
# a comment
# check=skip=all
CMD y
