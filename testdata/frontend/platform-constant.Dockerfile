FROM --platform=linux/arm64 multi
RUN uname -m
