FROM busybox
COPY a b c/
COPY ["a b", "/d e/"]
COPY a\ b /e
COPY --exclude=*.o --exclude=!x --parents --link=FALSE . .
