"""Logs: one entry a line on standard error, as JSON for machines or as text for people, and no secrets."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, ParamSpec, TypeVar

from service.kit import tracing

P = ParamSpec("P")
T = TypeVar("T")
Form = Literal["auto", "json", "text"]

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The request that is being served; threads that serve it have it too."""
_JOB_ID: ContextVar[str] = ContextVar("job_id", default="")
_ATTEMPT: ContextVar[int | None] = ContextVar("attempt", default=None)
_IDS = ("request_id", "job_id", "attempt", "trace_id")


def set_up_logging(role: str, form: Form = "auto", name: str | None = None) -> None:
    """Send this process's log to standard error, in UTC, each line with its role, or (text) the process's `name`.

    `auto` is text on a terminal and JSON elsewhere.
    """
    handler = logging.StreamHandler(sys.stderr)
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler.setFormatter(_Text(name or role) if text else _Json(role, name or role))
    handler.addFilter(_name_subject)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for noisy in ("httpx", "httpcore", "botocore", "alembic.runtime.plugins", "uvicorn.access", "rq.worker"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@contextmanager
def about(job_id: str, attempt: int | None = None) -> Generator[None]:
    """Name in each line of the block the job (or export, or preview) that it is about, and which attempt at it."""
    before = _JOB_ID.get(), _ATTEMPT.get()
    set_subject(job_id, attempt)
    try:
        yield
    finally:
        set_subject(*before)


def set_subject(job_id: str, attempt: int | None) -> None:
    """Name the job and the attempt in each line from here on, in this context: see `in_own_context`."""
    _JOB_ID.set(job_id)
    _ATTEMPT.set(attempt)


def in_own_context(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function whose subjects, and spans, end with it."""
    return copy_context().run(function, *args, **kwargs)


def carried(function: Callable[[], T]) -> Callable[[], T]:
    """Return a function for another thread that keeps this one's ids and trace."""
    return partial(copy_context().run, function)


def _name_subject(record: logging.LogRecord) -> bool:
    """Give the line the ids of what it is about, unless its call gave them as `extra`."""
    found = (REQUEST_ID.get(), _JOB_ID.get(), _ATTEMPT.get(), tracing.trace_id())
    for name, value in zip(_IDS, found, strict=True):
        if not hasattr(record, name):
            setattr(record, name, value)
    return True


class _Text(logging.Formatter):
    def __init__(self, role: str) -> None:
        super().__init__(
            f"%(asctime)sZ {role} %(levelname)s %(name)s%(subject)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
        )
        self.converter = _utc

    def format(self, record: logging.LogRecord) -> str:
        subject = " ".join(str(value) for name in _IDS[:3] if (value := getattr(record, name, None)) not in (None, ""))
        record.subject = f" [{subject}]" if subject else ""
        return super().format(record)


class _Json(logging.Formatter):
    def __init__(self, role: str, name: str) -> None:
        super().__init__()
        self._role = {"role": role, "process": name}

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **self._role,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: value for name in _IDS if (value := getattr(record, name, None)) not in (None, "")}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = record.stack_info
        return json.dumps(entry, ensure_ascii=False)


def _utc(seconds: float | None) -> Any:
    return datetime.fromtimestamp(seconds or 0.0, UTC).timetuple()
