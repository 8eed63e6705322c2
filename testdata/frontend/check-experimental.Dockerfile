# check=experimental=all
# something else
ARG A=1
# A the letter
ARG A
# base is the base
FROM busybox AS base
# no match
FROM busybox AS last
