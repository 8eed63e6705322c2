FROM busybox
COPY <<a /a
fine
${X:?has to be set}
a
COPY <<'b' /b
${not expanded
b
COPY <<c /c
${unclosed
c
