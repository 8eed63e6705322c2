ARG A=busybox
FROM ${A:?}${B:?nobase}
FROM "busybox
FROM --platform=${C:-linux/} busybox
