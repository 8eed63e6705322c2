ARG V=1
FROM a:$V
FROM --platform=linux/arm64 b as c
FROM scratch AS d-e_f.1
