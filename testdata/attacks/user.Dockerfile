# Lists of users and groups that are something else.
FROM busybox
RUN {change}
USER {user}
RUN id
