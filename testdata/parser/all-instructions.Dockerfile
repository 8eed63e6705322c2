FROM --platform=$BUILDPLATFORM busybox AS Base
ARG A B=1 C="x y"
ENV K=v K2="a b" K3=c\ d
LABEL a.b="c" "d e"='f'
RUN echo hi
CMD ["a", "b"]
ENTRYPOINT exec top -b
EXPOSE 80 443/tcp $PORTS
ADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 https://example.com/x /x
COPY --from=kit --chown=1:2 --chmod=644 --link a b /c/
VOLUME /data ["/x"]
VOLUME ["/a b", "/c"]
USER me:group of people
WORKDIR "/a b"
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f localhost
ONBUILD RUN make
SHELL ["/bin/bash", "-c"]
MAINTAINER Some One <one@example.com>
