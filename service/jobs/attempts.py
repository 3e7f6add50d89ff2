"""How attempts at jobs end, counted: each once, when the transaction that ends it is committed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from service.kit import metrics
from service.kit.db import after_commit

_REASONS = {
    "timeout": "timeout",
    "worker_lost": "lease_lost",
    "out_of_memory": "out_of_memory",
    "disk_full": "storage",
    "storage_full": "storage",
    "storage_unavailable": "storage",
}


def count_end(session: Session, reason: str) -> None:
    """Count an attempt that is over."""
    # Counted only after the commit: a transaction that is rolled back and tried again would otherwise count the
    # attempt twice.
    after_commit(session, metrics.ATTEMPTS.labels(reason).inc)


def reason_of(code: str, values: Mapping[str, Any]) -> str:
    """Return the class of a failure: by its code, else by who has to fix it.

    Only what is ours counts in `failures` or `crashes`, columns that are written with it.
    """
    # Errors that the owner has to fix end the job without touching these columns.
    is_crash = not {"failures", "crashes"}.isdisjoint(values)
    return _REASONS.get(code, "failed" if is_crash else "bad_input")
