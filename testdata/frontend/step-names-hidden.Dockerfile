FROM busybox
COPY --from=kit /srv /srv
COPY --from=busybox /bin /b
