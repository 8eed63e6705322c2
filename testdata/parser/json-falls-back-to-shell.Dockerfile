FROM busybox
CMD ['a']
CMD ["a",]
CMD ["a"] b
ENTRYPOINT [ "a" , "b" ]
ENTRYPOINT []
CMD
