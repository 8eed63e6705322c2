FROM busybox
RUN --mount=type=floppy,target=/a true
RUN --mount=type=cache,target=/c,colour=red true
RUN --mount=type=cache,sharing=lock,target=/c true
RUN --mount=target=/ true
RUN --mount=type=secret true
RUN --mount=type=secret,from=busybox,id=x true
RUN --mount=type=bind,target=/x,uid=1 true
RUN --mount=target=$(x true
