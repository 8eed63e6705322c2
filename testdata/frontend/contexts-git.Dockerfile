FROM tree AS one
FROM busybox
COPY --from=tree context /a
COPY --from=one /context /c
#: --build-context tree=https://token@h/r.git?tag=v1
