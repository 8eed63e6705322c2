ARG SOURCE_DATE_EPOCH=context
FROM busybox
ARG SOURCE_DATE_EPOCH
RUN date -d @$SOURCE_DATE_EPOCH
WORKDIR /made
#: --epoch-of-source 77
