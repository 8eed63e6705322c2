# escape=`
FROM busybox
RUN --mount=type=cache,target=C:\a` b,id=`$x --mount="type=tmpfs,target=c:\d" c:\run `
  x
COPY --chown="a`:b" c:\x d\
