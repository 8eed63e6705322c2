FROM busybox
RUN --mount=type=cache,target=/a,ro=maybe true
RUN --mount=type=secret,id=a,required=x true
RUN --mount=type=cache,target=/a,mode=9 true
RUN --mount=type=cache,target=/a,uid=-1 true
RUN --mount=type=cache,target=/a,gid=x true
RUN --mount=type=tmpfs,target=/a,size=big true
RUN --mount=type=cache,target=/a,sharing=alone true
RUN --mount='type=cache,target=${X:?no target}' true
RUN --mount=type=cache,target=/ true
RUN --mount=type=tmpfs,target=.. true
RUN --mount=target=$(x true
RUN --mount=type=cache,target=/c,colour=red true
