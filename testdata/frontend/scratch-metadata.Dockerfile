FROM scratch
WORKDIR /
LABEL a=b
