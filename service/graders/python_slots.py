"""Slots for Python graders that all API processes of a machine share: locks of files, in the data folder.

A slot is a file that is locked (flock(2)) as long as a grader runs. The kernel frees the lock with the process that has
it, however that ends, so no slot is ever lost; and nothing has to be running for it, as there would be with counters in
the queue. Each file names the project that holds it, so that the cap of a project counts over all processes too. Who
looks at the slots, or takes one, holds a lock of its own for that moment: `door`.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

_LOOK_SECONDS = 0.03
_LONGEST_ID = 256


class PythonSlots:
    """`count` slots under `folder`, of which one project has `per_project` at most."""

    def __init__(self, folder: Path, *, count: int, per_project: int) -> None:
        self._folder = folder
        self._count = count
        self._per_project = per_project
        self._usable: Path | None = None

    @asynccontextmanager
    async def hold_slot(self, project_id: str) -> AsyncGenerator[None]:
        """Hold a slot for the length of the block, and wait for one. Raises OSError if files cannot be locked."""
        while (slot := self.take_slot(project_id)) is None:
            await asyncio.sleep(_LOOK_SECONDS)
        try:
            yield
        finally:
            os.close(slot)

    def take_slot(self, project_id: str) -> int | None:
        """Return the descriptor that holds a slot until it is closed, None if there is none now. Raises OSError."""
        with self._hold_door() as is_open:
            # One at a time behind the door: two processes that count the slots at once could both give a project its
            # last one.
            return self._take_behind_door(project_id) if is_open else None

    def _take_behind_door(self, project_id: str) -> int | None:
        free: int | None = None
        own = 0
        for place in range(self._count):
            descriptor = _lock_file(self._lock_folder() / f"slot-{place}")
            if descriptor is None:
                # Locked slots name their project in the file, because a lock itself does not say who holds it.
                own += _read_holder(self._lock_folder() / f"slot-{place}") == project_id
            elif free is None:
                free = descriptor
            else:
                os.close(descriptor)
        if free is not None and own >= self._per_project:
            os.close(free)
            return None
        if free is not None:
            # Written while the lock is held; what an earlier holder left is longer or shorter.
            os.ftruncate(free, 0)
            os.pwrite(free, project_id.encode(), 0)
        return free

    @contextmanager
    def _hold_door(self) -> Generator[bool]:
        door = _lock_file(self._lock_folder() / "door")
        try:
            yield door is not None
        finally:
            if door is not None:
                os.close(door)

    def _lock_folder(self) -> Path:
        """Return the folder of the locks: in the data folder, or next to it if that is not writable.

        In a container with a root that is read only, all API processes have the folder for temporary files in common.
        """
        if self._usable is None:
            try:
                self._usable = _make_private_folder(self._folder)
            except OSError as error:
                if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                    raise
                self._usable = _make_private_folder(
                    Path(tempfile.gettempdir()) / f"burnish-python-slots-{os.geteuid()}"
                )
        return self._usable


def _make_private_folder(folder: Path) -> Path:
    """Make a folder that is this user's alone, and see that files can be written there. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The folder for temporary files is open to all users: a link or a folder of somebody else must not be used.
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise OSError(errno.ENOTDIR, "it is not a folder of this user", str(folder))
    if not os.access(folder, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    return folder


def _lock_file(path: Path) -> int | None:
    """Return the descriptor of a file that is locked as long as that is open; None if another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return descriptor


def _read_holder(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        return file.read(_LONGEST_ID).decode("utf-8", "replace")
    return ""
