FROM busybox
ONBUILD RUN x \
  y
onbuild  copy . /x
ONBUILD FOO bar
ONBUILD HEALTHCHECK NONE
