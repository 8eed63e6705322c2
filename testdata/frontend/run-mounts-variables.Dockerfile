FROM busybox
ARG T=/a,ro ID="x y"
RUN --mount=type=cache,target=$T,id=$ID --mount=type=secret,id=s${NONE},target=/s true
RUN --mount=type=bind,from=kit,target=/k$ --mount=type=tmpfs,target=/t,size=${S:-2k} true
