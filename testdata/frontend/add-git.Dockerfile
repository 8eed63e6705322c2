FROM busybox
ARG REV=v1
ADD https://github.com/a/b.git#$REV /src
ADD --keep-git-dir=true --checksum=0123abc git@example.org:a/b.git#main:docs /docs/
ADD --chown=1:2 --chmod=755 --exclude=*.md https://example.org/r.git?branch=dev&subdir=x&submodules=0&mtime=commit git://example.org/r .
ADD --link https://user:$REV@example.org/secret.git /linked
