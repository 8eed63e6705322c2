FROM a
COPY
COPY a
ADD a
COPY ["a"]
COPY --from=b
