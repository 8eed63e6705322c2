ARG SOURCE_DATE_EPOCH=context
FROM busybox
ARG SOURCE_DATE_EPOCH
RUN date
#: --epoch-of-source none --build-arg SOURCE_DATE_EPOCH=context
