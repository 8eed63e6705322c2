FROM busybox
COPY --parents a/b/c.txt x/./y/*.go /dst/
COPY --parents **/*.md /docs
COPY --exclude=*.txt --exclude=!keep.txt --exclude=$x src /src
