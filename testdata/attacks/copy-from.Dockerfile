# A COPY whose source leads over links, or up.
FROM busybox AS src
RUN ln -s {outside} /src && mkdir -p /dir && ln -s ../../../..{outside} /dir/up && \
    mkdir -p /etc/deep && echo 'of the stage' > /etc/own && ln -s ../../../../../etc/own /etc/deep/own && ln -s /etc/own /own
FROM scratch
COPY --from=src {source} /got/
