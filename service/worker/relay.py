"""Turns the trainer's `events.jsonl` into the job's events, once each however many attempts report them."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.jobs import repository
from service.jobs.errors import StaleLease
from service.kit.db import db_now
from service.kit.errors import Unavailable
from service.kit.log import carry_context
from service.staging.errors import LeaseLost
from service.storage import Storage
from service.worker.checkpoints import CheckpointUploads
from service.worker.lease import Lease
from service.worker.messages import replace_nonfinite, row_of
from service.worker.observed import AttemptProgress
from trainer.contract import events

log = logging.getLogger(__name__)

_BATCH_BYTES = 256 << 10
"""How much of the file goes into one transaction at most; a longer line is not an event."""


class EventRelay:
    """Follows one trainer's events in a thread of its own, so that neither SQL nor uploads delay the supervisor.

    `error` is the trainer's last `error` event. Checkpoints go to the store meanwhile.
    """

    def __init__(self, storage: Storage, lease: Lease, *, folder: Path, poll_seconds: float) -> None:
        self.error: events.ErrorEvent | None = None
        self._failure: Exception | None = None
        self._uploads = CheckpointUploads(storage, lease, folder=folder)
        self._lease = lease
        self._folder = folder
        self._poll = poll_seconds
        self._offset = 0
        self._progress = AttemptProgress()
        self._done = threading.Event()
        self._thread = threading.Thread(
            target=carry_context(self._follow_events), name=f"relay-{lease.job_id}", daemon=True
        )

    @property
    def failure(self) -> Exception | None:
        """What ended this thread, or that of the checkpoints, where something did."""
        return self._failure or self._uploads.failure

    def start(self) -> None:
        self._thread.start()

    def abandon(self) -> None:
        """Stop following; what is not yet written stays unwritten."""
        self._done.set()
        self._thread.join(self._poll + 1)
        self._uploads.abandon(self._poll + 1)
        self._progress.end_phase()

    def drain(self, *, in_haste: bool) -> None:
        """Write what is left, once the trainer has ended; `in_haste`, of its checkpoints only the newest.

        Raises LeaseLost or StaleLease.
        """
        self._done.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure
        while self._lease.retry_while_database_is_down(self._pump_events):
            pass
        self._uploads.finish(newest_only=in_haste)
        self._progress.end_phase()

    def _follow_events(self) -> None:
        try:
            while not self._done.is_set():
                try:
                    more = self._pump_events()
                except Unavailable as error:
                    log.warning("%s: events wait: %s", self._lease.job_id, error.message)
                    more = False
                if not more:
                    self._done.wait(self._poll)
        except (StaleLease, LeaseLost):
            log.info("%s: its events are not followed any more", self._lease.job_id)
        except Exception as error:  # noqa: BLE001 - raised again in the supervisor's thread
            self._failure = error

    def _pump_events(self) -> bool:
        """Write the next events and say whether there were any. Safe to repeat: the place moves on at the end."""
        data = self._read_batch()
        # The trainer may be in the middle of a line: only whole lines are read, the rest at the next look.
        end = data.rfind(b"\n") + 1
        if not end:
            if len(data) >= _BATCH_BYTES:
                log.warning("%s: a line of the trainer's events is too long", self._lease.job_id)
                self._offset += len(data)
            return False
        batch: list[events.Event] = []
        position = self._offset
        # Bytes, not text: U+2028 and its like do not end a line of JSON lines.
        for line in data[:end].splitlines(keepends=True):
            event = self._parse_line(line)
            if isinstance(event, events.CheckpointEvent):
                # Events before a checkpoint are committed first, so that the job's events never show a checkpoint
                # before its steps.
                self._write_batch(batch, position)
                batch = []
                self._uploads.add_checkpoint(event)
                # Moved only after the checkpoint was taken on: after an outage the same line is read again.
                self._offset = position + len(line)
            elif event is not None:
                batch.append(event)
            position += len(line)
        self._write_batch(batch, position)
        return True

    def _read_batch(self) -> bytes:
        try:
            with (self._folder / events.FILE_NAME).open("rb") as file:
                file.seek(self._offset)
                return file.read(_BATCH_BYTES)
        except FileNotFoundError:
            return b""

    def _parse_line(self, line: bytes) -> events.Event | None:
        if not line.strip():
            return None
        try:
            event = events.EVENT.validate_json(line)
        except ValidationError as error:
            reason = error.errors(include_url=False, include_input=False)[0]["msg"]
            log.warning("%s: a line of the trainer is not an event (%s)", self._lease.job_id, reason)
            return None
        if isinstance(event, events.ErrorEvent):
            self.error = event
        return event

    def _write_batch(self, batch: Sequence[events.Event], position: int) -> None:
        rows = [row for row in map(row_of, batch) if row is not None]
        if rows:
            with self._lease.open_transaction(**_job_columns(batch)) as session:
                for row in rows:
                    repository.add_event(session, self._lease.job_id, **row)
        # After the commit: a batch that failed is read and written again, and `once_key` drops what had been written.
        self._offset = position
        self._progress.add_events(batch)


def _job_columns(batch: Sequence[events.Event]) -> dict[str, Any]:
    """Return what the newest events change in the job's own row."""
    values: dict[str, Any] = {}
    for event in batch:
        if isinstance(event, events.ConfiguredEvent):
            values["resolved"] = replace_nonfinite(event.hyperparameters)
        elif isinstance(event, events.StepEvent) and math.isfinite(event.seconds_left):
            values["estimated_finish"] = db_now() + event.seconds_left
    return values
