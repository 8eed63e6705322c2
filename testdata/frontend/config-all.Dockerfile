FROM kit
MAINTAINER  Some One <a@b>
USER $UNSET:grp
STOPSIGNAL SIGRTMIN+3
VOLUME /a  /b
VOLUME ["/d"]
EXPOSE 90 $P 80/UDP 1000-1002 127.0.0.1:8080:81
HEALTHCHECK --interval=90s --retries=2 CMD ["a", "b"]
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENTRYPOINT run "me"
CMD a	b
LABEL "a.b c"="d e" k='$x' <html>=&
ENV OLD style value
ONBUILD RUN echo $later
ONBUILD COPY a b
#: --label extra=1 --label k=flag
