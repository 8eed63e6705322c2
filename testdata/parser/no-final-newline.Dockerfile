FROM scratch
RUN true