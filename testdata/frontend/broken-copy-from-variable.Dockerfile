ARG S=busybox
FROM busybox AS busy
COPY --from=$S /a /a
COPY --from=busy$ /b /b
