FROM busybox
COPY a.log dir/b.txt /x/
ADD deep/dir /y
COPY ok.txt /z
#: --ignore *.log --ignore dir --ignore deep
