# syntax=docker/dockerfile:1.7
# check=error=true

ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS base
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=off
WORKDIR /app

FROM base AS deps
COPY requirements*.txt ./
RUN --mount=type=cache,target=/root/.cache/pip <<EOF
python -m venv /venv
/venv/bin/pip install -r requirements.txt
EOF

FROM base
# only what runs
COPY --from=deps /venv /venv
COPY --chown=1000:1000 src/ src/
COPY <<'ENTRY' /entry.sh
#!/bin/sh
exec /venv/bin/gunicorn "$@"
ENTRY
ENV PATH="/venv/bin:$PATH"
USER 1000:1000
EXPOSE 8000/tcp
HEALTHCHECK --interval=30s --timeout=3s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://localhost:8000')"]
ENTRYPOINT ["/bin/sh", "/entry.sh"]
CMD ["app:main", "--bind", "0.0.0.0:8000"]
#: --build-context python:3.12-slim=docker-image://busybox
