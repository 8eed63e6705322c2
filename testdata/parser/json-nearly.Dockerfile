FROM busybox
ENTRYPOINT ["a" "b"]
CMD ["a"],
CMD [01]
CMD ["\x"]
CMD [a, b]
VOLUME ["a"
COPY ["a", /b
