FROM busybox
ADD --checksum=0123 https://h/a.git https://h/b.git /x
ADD --checksum=sha256:00 https://h/a.git /x
ADD --checksum=00 https://h/a.git?commit=01 /x
ADD --keep-git-dir=false https://h/a.git?keep-git-dir=1 /x
ADD https://h/a.git?depth=1 /x
ADD https://h/a.git?branch=x&tag=y /x
ADD https://h/a.git#--upload-pack=x /x
ADD https://h/a.git#:../x /x
ADD ssh://-oProxyCommand=x/r /x
COPY https://h/a.git?depth=1 /x
