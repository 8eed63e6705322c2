FROM busybox
RUN --mount=type=secret true
RUN --mount=type=secret,id=a,source=b true
RUN --mount=type=secret,id=a,from=busybox true
RUN --mount=type=secret,id=a,sharing=private true
RUN --mount=type=ssh,source=/a true
RUN --mount=type=ssh,sharing=shared true
RUN --mount=type=secret,id=a,target=/ true
