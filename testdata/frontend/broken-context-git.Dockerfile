FROM x
COPY --from=x a b
#: --build-context x=https://h/r.git
