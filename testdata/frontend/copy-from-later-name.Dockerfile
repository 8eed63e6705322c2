FROM busybox
COPY --from=kit /a /a
RUN --mount=from=kit,target=/k true
FROM kit AS later
FROM later
FROM busybox AS kit2
#: --target LATER
