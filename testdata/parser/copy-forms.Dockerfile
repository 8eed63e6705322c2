FROM a
COPY a b c/
COPY ["a b", "/d e/"]
COPY a\ b "c d" /e
COPY --exclude=*.o --exclude=!x --parents --link=FALSE . .
