"""Stores a trainer's checkpoints while it trains on, in a thread of its own: its events never wait for the store."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from collections import deque
from pathlib import Path

from service.jobs import repository, results_repository, retention
from service.kit.log import carry_context
from service.staging.transfer import DamagedFiles, StoredFolder, job_prefix, store_folder
from service.storage import Storage
from service.storage.errors import StorageError
from service.worker.lease import Lease
from service.worker.messages import EventRow, replace_nonfinite
from trainer.contract import events
from trainer.contract.result import CHECKPOINTS_FOLDER, MANIFEST_NAME

log = logging.getLogger(__name__)

MOST_WAITING = 2
"""How many checkpoints wait beside the one that is being stored; a further one takes the oldest one's place."""
_WAITING_FOLDER = "waiting"


class CheckpointUploads:
    """The checkpoints of one attempt on their way to the store, the oldest first. Nothing runs before the first.

    `failure` is what ended the thread, where something did.
    """

    def __init__(self, storage: Storage, lease: Lease, *, folder: Path) -> None:
        self.failure: Exception | None = None
        self._storage = storage
        self._lease = lease
        self._folder = folder
        self._waiting: deque[events.CheckpointEvent] = deque()
        self._changed = threading.Condition()
        self._last_was_added = False
        self._abandoned = False
        self._thread: threading.Thread | None = None

    def add_checkpoint(self, event: events.CheckpointEvent) -> None:
        """Take a checkpoint on: its files stay until they are stored, though the trainer removes old checkpoints.

        Raises LeaseLost or StaleLease if the place cannot be recorded.
        """
        try:
            # In the relay's thread and at once: the trainer deletes old checkpoints, and a link keeps their bytes.
            self._keep_files(event.step)
        except FileNotFoundError:
            log.info("%s: the trainer has removed its checkpoint at step %d already", self._lease.job_id, event.step)
            return
        except OSError as error:
            log.warning("%s: the checkpoint at step %d was not kept: %s", self._lease.job_id, event.step, error)
            self._add_lost_event(event.step)
            return
        with self._changed:
            self._waiting.append(event)
            # The oldest goes: a resumed job starts from the newest, and an upload never blocks the relay.
            left_out = self._waiting.popleft() if len(self._waiting) > MOST_WAITING else None
            self._changed.notify()
        if left_out is not None:
            log.warning("%s: the store is slower than the training writes checkpoints", self._lease.job_id)
            self._add_lost_event(left_out.step)
        # Started by the first checkpoint, since many jobs never write one.
        if self._thread is None:
            self._thread = threading.Thread(
                target=carry_context(self._store_until_done), name=f"checkpoints-{self._lease.job_id}", daemon=True
            )
            self._thread.start()

    def finish(self, *, newest_only: bool = False) -> None:
        """Return once everything is stored, or the newest checkpoint alone. Raises what ended the thread."""
        with self._changed:
            # A worker that must stop has only `stop_seconds`, and the job resumes from the newest one anyway.
            while newest_only and len(self._waiting) > 1:
                log.info(
                    "%s: there is no time for its checkpoint at step %d", self._lease.job_id, self._waiting[0].step
                )
                self._waiting.popleft()
            self._last_was_added = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        if self.failure is not None:
            raise self.failure

    def abandon(self, seconds: float) -> None:
        """Store nothing more; wait so long for the thread to notice."""
        with self._changed:
            self._abandoned = True
            self._waiting.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(seconds)

    def _store_until_done(self) -> None:
        try:
            while (event := self._next_checkpoint()) is not None:
                self._store_checkpoint(event)
        except Exception as error:  # noqa: BLE001 - raised again in the supervisor's thread
            self.failure = error

    def _next_checkpoint(self) -> events.CheckpointEvent | None:
        with self._changed:
            while not self._waiting:
                if self._last_was_added or self._abandoned:
                    return None
                self._changed.wait()
            return self._waiting.popleft()

    def _waiting_folder(self, step: int) -> Path:
        return self._folder / _WAITING_FOLDER / f"step-{step}"

    def _keep_files(self, step: int) -> None:
        """Link the checkpoint's files: that takes neither time nor room. Raises OSError."""
        place, source = self._waiting_folder(step), self._folder / CHECKPOINTS_FOLDER / f"step-{step}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        files = [path for path in source.rglob("*") if path.is_file()]
        # The manifest is written last: without it the trainer had begun to delete the folder.
        if source / MANIFEST_NAME not in files:
            raise FileNotFoundError(source)
        for file in files:
            target = place / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(file, target)

    def _store_checkpoint(self, event: events.CheckpointEvent) -> None:
        prefix = f"{job_prefix(self._lease.job_id, self._lease.token)}/checkpoints/step-{event.step}"
        try:
            # Bytes first, then the row: a row never points to a checkpoint that is not complete in the store.
            stored_folder = store_folder(self._storage, self._waiting_folder(event.step), prefix, self._lease)
        except (DamagedFiles, StorageError, OSError) as error:
            # A run does not end for a checkpoint: a later one may be kept.
            log.warning("%s: the checkpoint at step %d was not kept: %s", self._lease.job_id, event.step, error)
            self._add_lost_event(event.step)
        else:
            self._lease.retry_while_database_is_down(lambda: self._record_checkpoint(event, prefix, stored_folder))
        finally:
            shutil.rmtree(self._waiting_folder(event.step), ignore_errors=True)

    def _record_checkpoint(self, event: events.CheckpointEvent, prefix: str, stored_folder: StoredFolder) -> None:
        # Fenced by the token: a frozen worker that wakes up must not add its checkpoint to a job that another one
        # continues.
        with self._lease.open_transaction() as session:
            job = repository.by_id(session, self._lease.job_id)
            results_repository.add_checkpoint(
                session,
                self._lease.job_id,
                step=event.step,
                metrics=replace_nonfinite(event.metrics),
                blob_prefix=prefix,
                manifest_sha256=stored_folder.manifest_sha256,
                size=stored_folder.bytes,
                expires_in=retention.seconds_to_keep(job, "checkpoints") if job else None,
            )
            row = EventRow(message=f"Checkpoint created at step {event.step}", once_key=f"checkpoint:{event.step}")
            repository.add_event(session, self._lease.job_id, **row)

    def _add_lost_event(self, step: int) -> None:
        row = EventRow(
            message=f"The checkpoint at step {step} could not be kept", level="warn", once_key=f"lost-checkpoint:{step}"
        )

        def write_event() -> None:
            with self._lease.open_transaction() as session:
                repository.add_event(session, self._lease.job_id, **row)

        self._lease.retry_while_database_is_down(write_event)


def _link_or_copy(source: Path, target: Path) -> None:
    """Give a file another name, or copy it if the file system has no hard links. Raises OSError."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        shutil.copyfile(source, target)
