FROM a
ARG
ARG =x a
