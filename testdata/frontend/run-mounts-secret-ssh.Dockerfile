FROM busybox
RUN --mount=type=secret,id=a/b --mount=type=secret,id=tok,env=TOKEN --mount=type=secret,target=/root/.netrc,required,mode=0440,uid=5 echo $TOKEN
RUN --mount=type=secret,id=both,env=BOTH,target=t true
RUN --mount=type=ssh --mount=type=ssh,id=k,target=/s,required true
ENV SSH_AUTH_SOCK=/mine
RUN --mount=type=ssh true
