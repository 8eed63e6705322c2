FR\
OM busybox
RU\
N x
