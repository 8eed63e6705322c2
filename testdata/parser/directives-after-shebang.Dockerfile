#!/usr/bin/env build
# syntax=x/y:1
# escape=`
FROM busybox
RUN x `
