"""Looks, in a thread of its own, at the base models: what is broken or has changed is known before jobs need it."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from service.bases import repository
from service.catalog import BaseModelEntry, CatalogFolderSource
from service.catalog.base_folder import stamp_folder
from service.context import Context
from service.kit.errors import Unavailable
from service.staging.base_checks import (
    INSPECT_COMMAND,
    BaseFindings,
    inspect_base,
    look_at_files,
    needs_card,
    store_look,
)
from service.staging.errors import WorkerStopping
from service.worker.background import BackgroundWork

log = logging.getLogger(__name__)

_State = tuple[str, dict[str, tuple[int, int]]]


class BaseWatch(BackgroundWork):
    """A context manager around the thread. Files are read again only if sizes or times say that they have changed."""

    def __init__(self, context: Context, *, command: Sequence[str] = INSPECT_COMMAND) -> None:
        super().__init__("bases")
        self._context = context
        self._command = command
        self._seen: dict[str, _State] = {}

    def _run_until_stopped(self) -> None:
        while not self._stop.is_set():
            try:
                self.look_at_all()
            except WorkerStopping:
                return
            except Unavailable as error:
                log.warning("The base models are looked at later: %s", error.message)
            except Exception:  # the next look may be another matter
                log.exception("The base models could not be looked at")
            self._stop.wait(self._context.settings.heartbeat_seconds)

    def look_at_all(self) -> None:
        """Look at each base that is new or may have changed: at the files of all first, then inside.

        Raises Unavailable, WorkerStopping.
        """
        bases = [entry for entry in self._context.catalog.models if self._is_new(entry)]
        states = {entry.id: _state_of(entry) for entry in bases}
        sound_bases = [entry for entry in bases if self._look_at_base(entry) is None]
        # One worker of a machine makes the cards; the others find them there at their next look.
        with _hold_lock(self._context.settings.bases / ".inspect.lock") as is_alone:
            if sound_bases and not is_alone:
                return
            for entry in sound_bases:
                self._inspect_unless_known(entry)
        self._seen |= states

    def _is_new(self, entry: BaseModelEntry) -> bool:
        return self._seen.get(entry.id) != _state_of(entry)

    def _look_at_base(self, entry: BaseModelEntry) -> str | None:
        findings = look_at_files(entry)
        with self._context.db.write() as session:
            problem = store_look(session, self._context, entry, findings)
        if problem is not None:
            log.warning("Jobs on the base model %s are refused: %s", entry.id, problem)
        return problem

    def _inspect_unless_known(self, entry: BaseModelEntry) -> None:
        with self._context.db.read() as session:
            if not needs_card(repository.find_base_row(session, entry.id), entry):
                return
        findings = inspect_base(self._context.settings, entry, command=self._command, stop=self._stop)
        if findings == BaseFindings():  # on the hub: its first job fetches it
            return
        if findings.problem is not None:
            log.warning("Jobs on the base model %s are refused: %s", entry.id, findings.problem)
        with self._context.db.write() as session:
            repository.store_findings(
                session, entry, files=findings.files, card=findings.card, problem=findings.problem
            )


@contextmanager
def _hold_lock(path: Path) -> Generator[bool]:
    """Hold a lock that ends with this process; give whether it was free."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _state_of(entry: BaseModelEntry) -> _State:
    stamps = stamp_folder(entry.source.path) if isinstance(entry.source, CatalogFolderSource) else {}
    return entry.fingerprint, stamps
