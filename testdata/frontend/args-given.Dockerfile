ARG A=default
ARG B
FROM busybox
ARG A
ARG B=own
ARG C="${MISSING:?not evaluated}"
ARG D
ARG E='$A' F="x y"
RUN echo
#: --build-arg A=$B --build-arg C=it's --build-arg D= --build-arg UNUSED=1 --build-arg B
