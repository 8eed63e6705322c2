FROM scratch
ENV A=1
USER 1:2
EXPOSE 80
CMD ["/x"]
COPY x /
