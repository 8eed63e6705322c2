ARG LATER
FROM busybox AS busybox
FROM busybox AS busybox
FROM busybox AS x.y_z-1
FROM ${LATER:-x.y_z-1}
RUN true
