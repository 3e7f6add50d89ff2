"""`manifest.json`: what a run left behind, every file with its hash. Written last: without it there is no result."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import Any

from pydantic import Field

from trainer.frozen import Frozen

MANIFEST_NAME = "manifest.json"
OUTPUT_FOLDER = "output"
ADAPTER_FOLDER = "output/adapter"
MODEL_FOLDER = "output/model"
REPORT_JSON = "output/report.json"
REPORT_HTML = "output/report.html"
RESULT_CSV = "output/step_metrics.csv"
CHECKPOINTS_FOLDER = "checkpoints"


class ExitCode(IntEnum):
    """How `python -m trainer` ends."""

    DONE = 0
    FAULT = 1
    """Ours or the machine's: worth another attempt."""
    BAD_INPUT = 2
    """The user's: another attempt would end the same way."""
    STOPPED = 3
    """Stopped on request, after a checkpoint."""


class FileEntry(Frozen):
    """One file, its path relative to the manifest's folder, in POSIX form."""

    path: str
    bytes: int
    sha256: str


class Manifest(Frozen):
    """The files of a folder with their hashes, and the few facts that the job's row repeats."""

    version: int = 1
    files: tuple[FileEntry, ...]
    trained_tokens: int = 0
    facts: dict[str, Any] = Field(default_factory=dict)

    def verify_files(self, folder: Path) -> list[str]:
        """Return one sentence for each file of the manifest that is missing or differs under `folder`."""
        problems: list[str] = []
        for entry in self.files:
            path = folder / entry.path
            if not path.is_file():
                problems.append(f"{entry.path} is missing")
            elif sha256_of(path) != entry.sha256:
                problems.append(f"{entry.path} does not have the SHA-256 that the manifest states")
        return problems


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in lowercase hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path, paths: Iterable[Path]) -> tuple[FileEntry, ...]:
    """Hash `paths` and name them relative to `folder`, sorted by path."""
    return tuple(
        FileEntry(path=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(paths)
    )


def flush_to_disk(path: Path) -> None:
    """Make the disk keep a file's bytes, or a folder's names, through a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` beside its place, flush it to disk, then rename it into place."""
    temporary = folder / f".{MANIFEST_NAME}"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST_NAME)


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest. Raises FileNotFoundError if there is none, ValueError if it is broken."""
    return Manifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())
