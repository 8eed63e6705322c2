ARG A="x y"
FROM busybox
ARG A B C=
ARG D=a=b E='f g' F="h i" G=j\ k "L"=m
ARG \
  N=1 \
  # in between
  O
