FROM a
CMD ["a", 1]
RUN [null]
COPY ["a", ["b"]]
HEALTHCHECK CMD [1]
ONBUILD CMD [1]
