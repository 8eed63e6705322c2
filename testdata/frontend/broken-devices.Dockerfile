FROM busybox
RUN --device=vendor.com/gpu=all,required --device=vendor.com/net=0,required=true true
RUN --device=name=other,colour=red true
#: --allow device=vendor.com/net=0
