FROM scratch
ARG TOKEN
ADD https://user:$TOKEN@example.org/x /
#: --build-arg TOKEN=secret
