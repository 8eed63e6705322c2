FROM scratch
COPY . /
#: --context archive
