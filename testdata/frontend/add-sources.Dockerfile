FROM busybox
ARG SUM=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
ADD a.tar b.txt /dst/
ADD --unpack=false a.tar /kept.tar
ADD --checksum=$SUM https://example.org/dir/file.tgz?x=1 /dl/
ADD --unpack=true http://example.org /site
ADD --exclude=*.o --chown=1:2 --chmod=750 src /src
