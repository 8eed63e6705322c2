FROM busybox
RUN --device=a/b=c,optional true
RUN --device=name=x,count=2 true
RUN --device=x,required=maybe true
