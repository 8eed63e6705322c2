FROM busybox
ADD --keep-git-dir=true --unpack --chown=a b.tar c.tar /y/
ADD a.tar ./
