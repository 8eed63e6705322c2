FROM busybox
VOLUME ["/a b", " /c "] 
VOLUME ["/a b"]
VOLUME /d/../e /d /d
RUN touch /d/x
