"""The file that a run writes its events to."""

from __future__ import annotations

import os
from pathlib import Path

from trainer.contract.events import FILE_NAME, Event


class EventSink:
    """Appends events to `events.jsonl`; each line reaches the file whole, in one write."""

    def __init__(self, workdir: Path) -> None:
        self._file = os.open(workdir / FILE_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def emit(self, event: Event) -> None:
        """Write one event. Raises OSError if the disk is full."""
        os.write(self._file, event.model_dump_json().encode() + b"\n")

    def close(self) -> None:
        """Close the file; further events raise OSError."""
        os.close(self._file)
