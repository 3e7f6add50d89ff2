"""The catalog as it is now: the file's bases, which a process reads once, and those that operators added meanwhile."""

from __future__ import annotations

import math
import threading
import time

from service.bases import repository
from service.catalog import BaseModelEntry, Catalog
from service.kit.db import Database

_HOLDS_SECONDS = 1.0
"""How long what was read holds: each chat and each job asks."""


class LiveCatalog:
    """All base models that may be trained on. Safe to share between threads."""

    def __init__(self, file: Catalog, db: Database) -> None:
        self.file = file
        self._db = db
        self._lock = threading.Lock()
        self._models = file.models
        self._read_at = -math.inf

    @property
    def models(self) -> tuple[BaseModelEntry, ...]:
        """The bases, those of the file first. Raises Unavailable if the database does not answer."""
        if time.monotonic() - self._read_at > _HOLDS_SECONDS:
            self._read_again()
        return self._models

    def find_base(self, model_id: str) -> BaseModelEntry | None:
        """Return the base with this id; one that was added just now is found as well. Raises Unavailable."""
        base = _find_entry(self.models, model_id)
        # Results, `ft:…` and `ftjob-…`, are asked for most and are never bases.
        if base is None and not model_id.startswith(("ft:", "ftjob-")):
            self._read_again()
            base = _find_entry(self._models, model_id)
        return base

    def _read_again(self) -> None:
        # Never wait here: the caller may hold a connection of the pool, and if all who do waited for one more, none
        # would ever be free.
        if not self._lock.acquire(blocking=False):
            return
        try:
            with self._db.read() as session:
                entries = repository.fetch_entries(session)
            # One that was added under an id of the file takes its place.
            self._models = tuple({entry.id: entry for entry in (*self.file.models, *entries)}.values())
            self._read_at = time.monotonic()
        finally:
            self._lock.release()


def _find_entry(models: tuple[BaseModelEntry, ...], model_id: str) -> BaseModelEntry | None:
    return next((entry for entry in models if entry.id == model_id), None)
