"""Logs: one line an entry on standard error, with the process's role and no secrets."""

from __future__ import annotations

import logging
import sys


def set_up_logging(role: str) -> None:
    """Send this process's log to standard error, in UTC, each line with its role."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(
        f"%(asctime)sZ {role} %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "botocore", "alembic.runtime.plugins", "uvicorn.access", "rq.worker"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
