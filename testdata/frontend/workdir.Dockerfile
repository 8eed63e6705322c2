FROM scratch
WORKDIR a
USER 5:6
WORKDIR ../b/
USER name
WORKDIR /abs/./x/
WORKDIR "/with space"
WORKDIR /
#: --epoch 1000
