ARG A=${B:?must be given}
ARG C="open
FROM busybox
