#!/usr/bin/env build
# syntax=x/y:1
# escape=`
FROM a
RUN x `
