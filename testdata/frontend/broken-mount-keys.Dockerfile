FROM busybox
RUN --mount=type=bind,target=/a,size=1m true
RUN --mount=type=cache,target=/a,required true
RUN --mount=required,type=secret,id=a true
RUN --mount=type=tmpfs,target=/a,sharing=shared true
RUN --mount=type=cache,target true
RUN --mount=type=cache,targt=/a true
RUN --mount=type=cach,target=/a true
RUN --mount=type=cache,target=/a,mode true
RUN --mount=type=tmpfs,target=/a,mode=755 true
RUN --mount=type=bind,target=/a,gid=1 true
