FROM busybox AS a
SHELL ["/bin/ash", "-ec"]
RUN one
FROM a
RUN two
CMD three
ENTRYPOINT four
HEALTHCHECK CMD five
RUN <<EOF
six
EOF
