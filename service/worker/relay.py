"""Turns the trainer's `events.jsonl` into the job's events, once each however many attempts report them."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.jobs import repository, retention
from service.jobs.errors import StaleLease
from service.kit.db import db_now
from service.kit.errors import Unavailable
from service.kit.log import carried
from service.storage import Storage
from service.storage.errors import StorageError
from service.worker.errors import LeaseLost
from service.worker.lease import Lease
from service.worker.messages import Row, finite, row_of
from service.worker.observed import Progress
from service.worker.transfer import Damaged, StoredFolder, job_prefix, store_folder
from trainer import events
from trainer.result import CHECKPOINTS_FOLDER

log = logging.getLogger(__name__)

_BATCH_BYTES = 256 << 10
"""How much of the file goes into one transaction at most; a longer line is no event."""


class Relay:
    """Follows one trainer's events in a thread of its own, so that neither SQL nor uploads delay the supervisor.

    `error` is the trainer's last `error` event. `failure` is what ended the thread, where something did.
    """

    def __init__(self, storage: Storage, lease: Lease, *, folder: Path, poll_seconds: float) -> None:
        self.error: events.Error | None = None
        self.failure: Exception | None = None
        self._storage = storage
        self._lease = lease
        self._folder = folder
        self._poll = poll_seconds
        self._offset = 0
        self._progress = Progress()
        self._done = threading.Event()
        self._thread = threading.Thread(target=carried(self._follow), name=f"relay-{lease.job_id}", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def abandon(self) -> None:
        """Stop following; what is not yet written stays unwritten."""
        self._done.set()
        self._thread.join(self._poll + 1)
        self._progress.end()

    def drain(self) -> None:
        """Write what is left, once the trainer has ended. Raises LeaseLost or StaleLease."""
        self._done.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure
        while self._lease.insist(self._pump):
            pass
        self._progress.end()

    def _follow(self) -> None:
        try:
            while not self._done.is_set():
                try:
                    more = self._pump()
                except Unavailable as error:
                    log.warning("%s: events wait: %s", self._lease.job_id, error.message)
                    more = False
                if not more:
                    self._done.wait(self._poll)
        except (StaleLease, LeaseLost):
            log.info("%s: its events are not followed any more", self._lease.job_id)
        except Exception as error:  # noqa: BLE001 - raised again in the supervisor's thread
            self.failure = error

    def _pump(self) -> bool:
        """Write the next events and say whether there were any. Safe to repeat: the place moves on at the end."""
        data = self._read()
        end = data.rfind(b"\n") + 1
        if not end:
            if len(data) >= _BATCH_BYTES:
                log.warning("%s: a line of the trainer's events is too long", self._lease.job_id)
                self._offset += len(data)
            return False
        batch: list[events.Event] = []
        position = self._offset
        for line in data[:end].splitlines(keepends=True):
            event = self._parse(line)
            if isinstance(event, events.Checkpoint):
                self._write(batch, position)
                batch = []
                self._keep_checkpoint(event)
                self._offset = position + len(line)
            elif event is not None:
                batch.append(event)
            position += len(line)
        self._write(batch, position)
        return True

    def _read(self) -> bytes:
        try:
            with (self._folder / events.FILE_NAME).open("rb") as file:
                file.seek(self._offset)
                return file.read(_BATCH_BYTES)
        except FileNotFoundError:
            return b""

    def _parse(self, line: bytes) -> events.Event | None:
        if not line.strip():
            return None
        try:
            event = events.EVENT.validate_json(line)
        except ValidationError as error:
            reason = error.errors(include_url=False, include_input=False)[0]["msg"]
            log.warning("%s: a line of the trainer is no event (%s)", self._lease.job_id, reason)
            return None
        if isinstance(event, events.Error):
            self.error = event
        return event

    def _write(self, batch: Sequence[events.Event], position: int) -> None:
        rows = [row for row in map(row_of, batch) if row is not None]
        if rows:
            with self._lease.write(**_columns(batch)) as session:
                for row in rows:
                    repository.add_event(session, self._lease.job_id, **row)
        self._offset = position
        self._progress.add(batch)

    def _keep_checkpoint(self, event: events.Checkpoint) -> None:
        name = f"step-{event.step}"
        prefix = f"{job_prefix(self._lease.job_id, self._lease.token)}/checkpoints/{name}"
        try:
            stored = store_folder(self._storage, self._folder / CHECKPOINTS_FOLDER / name, prefix, self._lease)
        except FileNotFoundError:
            log.info("%s: the trainer has removed its checkpoint at step %d already", self._lease.job_id, event.step)
            return
        except (Damaged, StorageError, OSError) as error:
            # A run does not end for a checkpoint: a later one may be kept.
            log.warning("%s: the checkpoint at step %d was not kept: %s", self._lease.job_id, event.step, error)
            row = Row(
                message=f"The checkpoint at step {event.step} could not be kept",
                level="warn",
                once_key=f"lost-checkpoint:{event.step}",
            )
            self._lease.insist(lambda: self._record(row))
            return
        row = Row(message=f"Checkpoint created at step {event.step}", once_key=f"checkpoint:{event.step}")
        self._lease.insist(lambda: self._record(row, event, prefix, stored))

    def _record(
        self, row: Row, event: events.Checkpoint | None = None, prefix: str = "", stored: StoredFolder | None = None
    ) -> None:
        with self._lease.write() as session:
            if event is not None and stored is not None:
                job = repository.by_id(session, self._lease.job_id)
                repository.add_checkpoint(
                    session,
                    self._lease.job_id,
                    step=event.step,
                    metrics=finite(event.metrics),
                    blob_prefix=prefix,
                    manifest_sha256=stored.manifest_sha256,
                    size=stored.bytes,
                    expires_in=retention.seconds(job, "checkpoints") if job else None,
                )
            repository.add_event(session, self._lease.job_id, **row)


def _columns(batch: Sequence[events.Event]) -> dict[str, Any]:
    """Return what the newest events change in the job's own row."""
    values: dict[str, Any] = {}
    for event in batch:
        if isinstance(event, events.Configured):
            values["resolved"] = finite(event.hyperparameters)
        elif isinstance(event, events.Step) and math.isfinite(event.seconds_left):
            values["estimated_finish"] = db_now() + event.seconds_left
    return values
