FROM busybox
SHELL ["a", "-c"]
SHELL [ "b" ]
