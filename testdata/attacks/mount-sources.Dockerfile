# A bind mount whose source leads over a link.
FROM busybox AS src
RUN ln -s {outside} /src && mkdir -p /dir && ln -s ../../../..{outside} /dir/up
FROM busybox
RUN --mount=type=bind,from=src,{source},target=/m,rw cat /m/canary && echo evil > /m/canary
