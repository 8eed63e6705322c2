FROM a
RUN --mount=type=bind,from=$x,target=/y z
RUN --mount= x
RUN --mount=a\"b x
