FROM busybox
ARG WHO=app
COPY --chown=1 a /a
COPY --chown=1:2 a /b
COPY --chown=$WHO a /c
COPY --chown=$WHO:staff a b /d/
COPY --chown=root: a /e
COPY --chown=:5 a /f
