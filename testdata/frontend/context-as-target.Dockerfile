FROM x AS base
LABEL a=b
#: --build-context x=/folder
