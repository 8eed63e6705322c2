FROM busybox
COPY *.txt a?[bc]/x \*.md /d/
COPY --from=kit /s*/f /e/
COPY a[^b]c [x-z]* /f/
