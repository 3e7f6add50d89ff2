"""Logs: one entry a line on standard error, as JSON for machines or as text for people, and no secrets."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
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
    handler.setFormatter(_TextFormatter(name or role) if text else _JsonFormatter(role, name or role))
    handler.addFilter(_name_subject)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for noisy in ("httpx", "httpcore", "botocore", "alembic.runtime.plugins", "uvicorn.access", "rq.worker"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@contextmanager
def log_subject(job_id: str, attempt: int | None = None) -> Generator[None]:
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
    """Call a function; its subjects and spans end with it."""
    return copy_context().run(function, *args, **kwargs)


def carry_context(function: Callable[[], T]) -> Callable[[], T]:
    """Return a function for another thread that keeps this one's ids and trace."""
    return partial(copy_context().run, function)


def _name_subject(record: logging.LogRecord) -> bool:
    """Give the line the ids of what it is about, unless its call gave them as `extra`."""
    labels = (REQUEST_ID.get(), _JOB_ID.get(), _ATTEMPT.get(), tracing.trace_id())
    for name, value in zip(_IDS, labels, strict=True):
        if not hasattr(record, name):
            setattr(record, name, value)
    return True


class SparseLog:
    """Logs something that strangers may cause thousands of times a second: at once, and then once in `seconds`.

    An entry says how often it happened since the entry before. What is still uncounted when nothing more happens is
    logged by `flush`.
    """

    def __init__(
        self,
        log: logging.Logger,
        level: int = logging.WARNING,
        *,
        seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._level, self._seconds, self._clock = log, level, seconds, clock
        self._last: float | None = None
        self._count = 0
        self._latest: tuple[str, tuple[object, ...]] = ("", ())

    def log_sparsely(self, message: str, *args: object) -> None:
        """Log the message, or count it."""
        self._count += 1
        self._latest = message, args
        self.flush()

    def flush(self) -> None:
        """Log what was counted, if it is time."""
        now = self._clock()
        if not self._count or (self._last is not None and now - self._last < self._seconds):
            return
        message, args = self._latest
        times = f" ({self._count} times since the last such entry)" if self._count > 1 else ""
        self._log.log(self._level, message + times, *args)
        self._last, self._count = now, 0


_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape_controls(text: str) -> str:
    """Return a text on one line, without what would move a terminal's cursor or turn the order of its letters."""
    return _CONTROLS.sub(_escape_match, text)


def _escape_match(match: re.Match[str]) -> str:
    code = ord(match[0])
    return _NAMED.get(match[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


class _TextFormatter(logging.Formatter):
    def __init__(self, role: str) -> None:
        super().__init__(
            f"%(asctime)sZ {role} %(levelname)s %(name)s%(subject)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
        )
        self.converter = _utc_time

    def format(self, record: logging.LogRecord) -> str:
        subject = " ".join(str(value) for name in _IDS[:3] if (value := getattr(record, name, None)) not in (None, ""))
        record.subject = f" [{subject}]" if subject else ""
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        return escape_controls(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return _indent_lines(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _indent_lines(super().formatStack(stack_info))


def _indent_lines(lines: str) -> str:
    """Keep the lines of a traceback apart from entries: an exception's words may look like one."""
    return "\n".join(f"  {escape_controls(line)}" for line in lines.split("\n"))


class _JsonFormatter(logging.Formatter):
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


def _utc_time(seconds: float | None) -> Any:
    return datetime.fromtimestamp(seconds or 0.0, UTC).timetuple()
