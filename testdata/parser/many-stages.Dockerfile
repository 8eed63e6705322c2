FROM busybox AS one
RUN x
FROM one AS two
FROM two
COPY --from=0 /a /b
