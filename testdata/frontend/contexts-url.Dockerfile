FROM page AS one
FROM busybox
COPY --from=page context /a
RUN --mount=from=page,target=/b true
COPY --from=one /context /c
#: --build-context page=https://token@example.org/x?y=1
