FROM a
ADD --keep-git-dir=true --unpack --chown=a https://x/y.git#v1 /y
ADD a.tar ./
