FROM scratch
COPY context /
RUN --mount=target=/in ["x"]
#: --context https://user:secret@example.org/dir/Dockerfile
