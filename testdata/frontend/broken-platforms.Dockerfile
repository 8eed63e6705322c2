FROM --platform=linux busybox AS a
FROM --platform=x/ busybox AS b
FROM --platform=lin*ux/amd64 busybox AS c
FROM --platform=a/b/c/d busybox
