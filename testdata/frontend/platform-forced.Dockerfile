FROM --platform=linux/amd64 multi
#: --platform linux/arm64
