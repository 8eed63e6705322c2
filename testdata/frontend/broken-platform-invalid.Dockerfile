FROM --platform=linux/$X/y/z busybox
