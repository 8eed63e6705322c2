FROM busybox
COPY a.log /x/
#: --ignore *.log --ignore !b.log
