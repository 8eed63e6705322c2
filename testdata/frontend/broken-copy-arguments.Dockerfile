FROM busybox
COPY --chmod=u+rw,x a b
COPY --chown=${X:?who} a b
COPY a "b
COPY ["$", "${"]
ADD --chmod=rwx a b
