"""Logs: one line an entry on standard error, with the process's role and the request's id, and no secrets."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The request that is being served; threads that serve it have it too."""


def set_up_logging(role: str) -> None:
    """Send this process's log to standard error, in UTC, each line with its role."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(
        f"%(asctime)sZ {role} %(levelname)s %(name)s%(request)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    handler.setFormatter(formatter)
    handler.addFilter(_name_request)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "botocore", "alembic.runtime.plugins", "uvicorn.access", "rq.worker"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _name_request(record: logging.LogRecord) -> bool:
    """Give the line the id of the request that it is about."""
    request_id = REQUEST_ID.get()
    record.request = f" [{request_id}]" if request_id else ""
    return True
