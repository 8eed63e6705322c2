FROM busybox AS base
FROM kit AS Other
COPY --from=0 /a /a
COPY --from=BASE /b /b
COPY --from=busybox:latest /c /c
COPY --from=scratch /d /d
COPY --from= e /e
COPY --from=base ./f/../g h/ i* ./
