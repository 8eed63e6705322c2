FROM busybox
RUN --device=vendor.com/gpu=all,required --device=name=other true
#: --allow device=vendor.com/gpu
