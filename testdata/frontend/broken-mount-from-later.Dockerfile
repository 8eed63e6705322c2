FROM busybox AS first
RUN --mount=from=second,target=/m true
FROM busybox AS second
#: --target first
