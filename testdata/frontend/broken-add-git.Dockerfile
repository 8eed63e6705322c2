FROM busybox
ADD --keep-git-dir=true https://github.com/a/b.git#main /src
