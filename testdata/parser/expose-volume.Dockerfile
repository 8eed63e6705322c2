FROM busybox
EXPOSE 80/tcp 1-3  $p
VOLUME a  b
VOLUME ["c d"]
