ARG A
ARG B=${A:-x} C
FROM busybox
ARG A
