"""What has arrived of a download, beside its target: kept over a killed process, written by one process at a time.

Of `model.zip` it is `.model.zip.part`; `.model.zip.part.json` says which object the bytes are from.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ValidationError

from burnish.errors import DownloadBusy

try:
    import fcntl
except ImportError:  # Windows, where nobody can open a file that is being replaced
    fcntl = None

_CHUNK = 2**20
# Its name can be guessed: a link that somebody else put there is not followed.
_OPEN = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class Origin(BaseModel, defer_build=True):
    """The object that the bytes are from."""

    etag: str
    sha256: str
    """In hexadecimal digits."""
    total: int

    @property
    def resumable(self) -> bool:
        """Whether more of the very same bytes can be asked for, and recognised by a strong ETag."""
        return self.etag.startswith('"') and self.total > 0


class PartialFile:
    """The partial file of `target`. Raises DownloadBusy if another process, or another download, writes it."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f".{target.name}.part")
        self._note = target.with_name(f".{target.name}.part.json")
        self._target = target
        self._file = self._open_locked()
        self._hash = hashlib.sha256()
        self.size = 0
        """How many bytes of it count."""
        self.origin: Origin | None = None

    def load_earlier(self) -> None:
        """Load what an earlier download left, if anything."""
        try:
            origin = Origin.model_validate_json(self._note.read_bytes())
        except (OSError, ValidationError):
            return
        if not origin.resumable:
            return
        self.origin = origin
        self._file.seek(0)
        # One byte is asked for again if all are there: the answer shows whether they are still the right ones.
        self._count_earlier(origin.total - 1)

    def _count_earlier(self, most: int) -> None:
        while self.size < most and (chunk := self._file.read(min(_CHUNK, most - self.size))):
            self._hash.update(chunk)
            self.size += len(chunk)
        self._file.truncate(self.size)
        self._file.seek(self.size)

    def restart_with(self, origin: Origin | None) -> None:
        """Begin anew, with the bytes of `origin`; None if nothing could be resumed later."""
        self._note.unlink(missing_ok=True)
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self.size = 0
        self.origin = origin
        if origin is not None and origin.resumable:
            # Before the first byte, so that bytes never stand beside a note of something else.
            with self._note.open("x", encoding="utf-8") as note:
                note.write(origin.model_dump_json())

    def write(self, chunk: bytes) -> None:
        """Add bytes. Raises OSError if the disk is full."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def flush_and_hash(self) -> str:
        """Return the hash of all bytes, which are on the disk then."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._hash.hexdigest()

    def publish(self) -> None:
        """Give the file its name."""
        self.path.replace(self._target)
        self._note.unlink(missing_ok=True)

    def close(self, *, keep: bool) -> None:
        """Leave the file for a later download if `keep` is set and that could use it, or remove it."""
        keep_file = keep and self.size > 0 and self.origin is not None and self.origin.resumable
        if not keep_file:
            self._note.unlink(missing_ok=True)
            if self._is_ours():
                self.path.unlink(missing_ok=True)
        self._file.close()  # last, for with it goes the lock

    def _open_locked(self) -> IO[bytes]:
        while True:
            file = os.fdopen(os.open(self.path, _OPEN, 0o666), "r+b")
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._file = file
                # Whoever had the lock before may just have renamed or removed what was open_response here.
                if self._is_ours():
                    return file
                file.close()
            except BlockingIOError:
                file.close()
                raise DownloadBusy(
                    f"{self._target} is being downloaded already, by another process or task; "
                    "wait for it, or name another place."
                ) from None

    def _is_ours(self) -> bool:
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        own_status = os.fstat(self._file.fileno())
        return (there.st_dev, there.st_ino) == (own_status.st_dev, own_status.st_ino)
