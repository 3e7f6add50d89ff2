"""What a worker has, as far as jobs may ask for it: counted without torch, by settings or by `nvidia-smi`."""

from __future__ import annotations

import logging
import os
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec

from service.kit.settings import Settings

_log = logging.getLogger(__name__)
_QUERY = ("nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits")
_PATIENCE = 20.0
_MIB = 1 << 20
GB = 10**9


@dataclass(frozen=True)
class Capacity:
    """GPUs, the memory in bytes of the one that trainers use (None: unknown), and the labels of the settings."""

    gpus: int = 0
    gpu_memory: int | None = None
    labels: frozenset[str] = frozenset()
    trains_in_4bit: bool = False
    """Whether `quantization: 4bit` works: with a GPU and the package bitsandbytes."""


def own_capacity(settings: Settings) -> Capacity:
    """Return what this machine's workers have: the settings decide, and if they do not, what is detected."""
    memories = visible_memories() if settings.worker_gpus is None else []
    gpus = len(memories) if settings.worker_gpus is None else settings.worker_gpus
    memory = memories[0] if memories else None
    if settings.worker_gpu_memory_gb is not None:
        memory = int(settings.worker_gpu_memory_gb * GB)
    return Capacity(
        gpus=gpus,
        gpu_memory=memory if gpus else None,
        labels=settings.labels,
        # Looked for and not imported: the service loads no models.
        trains_in_4bit=bool(gpus) and find_spec("bitsandbytes") is not None,
    )


def visible_memories() -> list[int]:
    """Return the memory in bytes of each GPU that CUDA programs see, in their order; none if there is no driver."""
    try:
        output = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_PATIENCE, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        _log.debug("no GPU was found: %s", error)
        return []
    return memories_of(output, os.environ.get("CUDA_VISIBLE_DEVICES"))


def memories_of(listing: str, visible: str | None) -> list[int]:
    """Return the GPUs of nvidia-smi's listing that `CUDA_VISIBLE_DEVICES` lets through, by index or start of UUID.

    As in CUDA, an entry that names no device ends the list.
    """
    lines = [[part.strip() for part in line.split(",")] for line in listing.splitlines() if line.count(",") == 2]
    gpus = {(index, uuid): int(size) * _MIB for index, uuid, size in lines if size.isdigit()}
    if visible is None:
        return list(gpus.values())
    memories: list[int] = []
    for name in (part.strip() for part in visible.split(",")):
        matches = [size for (index, uuid), size in gpus.items() if name and (index == name or uuid.startswith(name))]
        if not matches:
            break
        memories.append(matches[0])
    return memories
