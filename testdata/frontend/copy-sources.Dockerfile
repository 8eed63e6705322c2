FROM busybox
COPY ./a ../b /c/ d/* /dst/
COPY --from=busybox /bin/sh bin/ls /other/
COPY --from=scratch / /empty
COPY Dockerfile /
