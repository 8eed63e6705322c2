FROM kit AS a
CMD ["mine"]
ENTRYPOINT ["/new"]
FROM a AS b
ENTRYPOINT ["/other"]
FROM b
ENTRYPOINT []
CMD []
