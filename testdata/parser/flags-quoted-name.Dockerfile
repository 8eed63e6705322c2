FROM busybox
RUN --'network'=none "x"
COPY --"chown"='1:2' a b
