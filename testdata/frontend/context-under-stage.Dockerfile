FROM folder AS base
FROM base
LABEL a=b
#: --build-context folder=/folder --build-arg SOURCE_DATE_EPOCH=context
