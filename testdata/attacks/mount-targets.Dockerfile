# Mounts whose targets, or whose clean-up, lead over links.
FROM busybox AS src
RUN ln -s {outside} /src && mkdir -p /dir && ln -s ../../../..{outside} /dir/up
FROM busybox
RUN mkdir -p $(dirname {outside}) && ln -s {outside} /link && ln -s /../../..{outside} /up
RUN --mount=type=cache,target=/link touch /link/made
RUN --mount=type=cache,target=/up/sub touch /up/sub/made
RUN --mount=type=tmpfs,target=/link/../../t touch /link/../../t/made || true
RUN --mount=type=bind,from=src,source=/dir,target=/m,rw ls /m; echo x > /m/up/canary; true
RUN --mount=type=cache,target=/a/b/c mv /a /z; mkdir -p /a; ln -s {empty} /a/x; true
RUN --mount=type=cache,target=/q/b/c mv /q /z2; ln -s {empty} /q; true
