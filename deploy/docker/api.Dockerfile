# syntax=docker/dockerfile:1
# The API, the controller and the migrations: the base install, without torch.
# Build it from the repository's root: docker build -f deploy/docker/api.Dockerfile -t burnish-api:0.1.0 .

FROM python:3.11.15-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
RUN python -m venv /opt/burnish
ENV PATH=/opt/burnish/bin:$PATH
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY clients/python/pyproject.toml clients/python/README.md clients/python/
COPY locks locks
# No source is here yet: this layer holds the dependencies alone, and stays in the cache while only code changes.
# Each file is checked by its hash; the second command finds them there.
RUN pip install --no-deps --require-hashes -r locks/api.lock \
    && pip install -c constraints.txt '.[telemetry]' ./clients/python
COPY service service
COPY trainer trainer
COPY clients/python/burnish clients/python/burnish
RUN pip install --no-deps --force-reinstall . ./clients/python

FROM python:3.11.15-slim-bookworm
LABEL org.opencontainers.image.title="Burnish API and controller" \
      org.opencontainers.image.description="Post-training of language models as a service: API, controller, migrations" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 burnish \
    && useradd --uid 10001 --gid burnish --home-dir /var/lib/burnish --create-home --shell /usr/sbin/nologin burnish
COPY --from=build /opt/burnish /opt/burnish
ENV PATH=/opt/burnish/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BURNISH_DATA=/var/lib/burnish
WORKDIR /var/lib/burnish
USER 10001:10001
EXPOSE 8000
# No ENTRYPOINT: one image runs several commands, and each is written out in full where it is run.
CMD ["burnish-server", "api", "--host", "0.0.0.0", "--port", "8000"]
