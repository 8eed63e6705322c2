FROM kit
USER app:staff
WORKDIR sub/../other/
ENV A="1 2"
RUN ["/bin/echo", "$A"]
RUN echo $A   \
  "two"
#: --build-arg BUILDKIT_SANDBOX_HOSTNAME=box --shm-size 1048576
