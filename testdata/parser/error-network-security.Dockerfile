FROM a
RUN --network=bridge --security=none x
RUN --network= y
