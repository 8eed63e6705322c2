FROM busybox
RUN --mount=TYPE=Cache,Target=/a,SHARING=Locked,ReadOnly --mount=type=bind,dst=/b,src=x,readwrite=true true
RUN --mount='"target=/c,d",source=e' --mount=destination=/f,ro=0 --mount=type=tmpfs,target=/g,size=1.5m,readonly true
RUN --mount=type=secret,"id=a",required=false --mount=type=ssh,required=1,mode=600,gid=7 --mount=type=secret,src=k,dst=/k true
