FROM kit
WORKDIR rel
WORKDIR rel2
FROM kit
WORKDIR /abs
WORKDIR rel
#: --all-stages
