"""Room that is kept on the disk of an embedded database, so that a full disk still lets objects be deleted.

SQLite writes before it deletes: the row's removal, the entry in the audit log, what the controller is to do next.
"""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

from service.kit.settings import Settings

_log = logging.getLogger(__name__)
NAME = "reserve"
_LEAST_FREE_BYTES = 1 << 20
_ROOM_TO_REFILL = 4
"""The reserve is taken again once so many times its size is free."""


class DiskReserve:
    """A file of the data folder that holds `size` bytes until they are needed; processes share it. 0 keeps nothing."""

    def __init__(self, folder: Path, size: int) -> None:
        self._path = folder / NAME
        self._size = size
        self._armed = False

    @classmethod
    def from_settings(cls, settings: Settings) -> DiskReserve:
        """Return the reserve of the settings: none if the database is not a file in the data folder."""
        return cls(settings.data, settings.disk_reserve_bytes if settings.database_url is None else 0)

    def fill(self) -> None:
        """Take the room unless it is taken, or the disk has too little left."""
        if not self._size:
            return
        try:
            if self._is_whole():
                self._armed = True
            # Taken again only with room to spare, or it would be released and refilled in turns.
            elif shutil.disk_usage(self._path.parent).free >= _ROOM_TO_REFILL * self._size:
                self._allocate_file()
                self._armed = True
        except OSError as error:
            _log.warning("%d bytes could not be kept free for deleting on a full disk: %s", self._size, error.strerror)

    def release(self) -> None:
        """Give the room back to the disk."""
        with suppress(FileNotFoundError):
            # Deleted rather than truncated: the other processes see at once that it is gone.
            self._path.unlink()
            _log.warning("The disk is full: %d bytes that were kept for this are free for deleting now.", self._size)

    def release_if_full(self) -> None:
        """Give the room back if there is hardly any other: a database cannot even be opened without some."""
        with suppress(OSError):
            if self._is_whole() and shutil.disk_usage(self._path.parent).free < _LEAST_FREE_BYTES:
                self.release()

    def is_used_up(self) -> bool:
        """Return whether the reserve was released, and not allocated again."""
        return self._armed and not self._path.exists()

    def _is_whole(self) -> bool:
        with suppress(FileNotFoundError):
            return self._path.stat().st_size == self._size
        return False

    def _allocate_file(self) -> None:
        """Write the file beside its place: processes that do so together leave one."""
        draft = self._path.with_name(f".{NAME}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                # Blocks and not a hole: a sparse file would keep nothing free.
                os.posix_fallocate(file.fileno(), 0, self._size)
                os.fsync(file.fileno())
            os.replace(draft, self._path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
