"""Errors on one call in so many to SQL, S3 and Valkey, for the process that calls `inject`: before it, or after it.

After it is the harder case: what was asked for is done, and the caller is told that it failed.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import psycopg
import redis
from botocore.client import BaseClient
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError
from redis.connection import AbstractConnection
from sqlalchemy import Engine, event
from sqlalchemy.engine.default import DefaultDialect

AFTER = "after it was done"
BEFORE = "before it was done"


@dataclass(frozen=True)
class Luck:
    """Decides which calls fail, and keeps a line for each in a file that several processes share."""

    rate: float
    chance: random.Random
    record: Path

    def strikes(self, what: str, moments: tuple[str, ...] = (BEFORE, AFTER)) -> str | None:
        """Return when a call fails, None where it does not."""
        if self.chance.random() >= self.rate:
            return None
        when = self.chance.choice(moments)
        with self.record.open("a") as file:
            file.write(f"{what} {when}\n")
        return when


def inject(rate: float, seed: int, record: Path) -> None:
    """Let calls of this process fail from now on."""
    luck = Luck(rate, random.Random(seed + os.getpid()), record)
    _spoil_sql(luck)
    _spoil_s3(luck)
    _spoil_valkey(luck)


def counted(record: Path) -> Counter[str]:
    """Return how many calls failed of each kind."""
    return Counter(record.read_text().splitlines()) if record.exists() else Counter()


def _around(luck: Luck, what: str, error: Callable[[], Exception], call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def spoiled(*args: Any, **options: Any) -> Any:
        when = luck.strikes(what)
        if when == BEFORE:
            raise error()
        answer = call(*args, **options)
        if when == AFTER:
            raise error()
        return answer

    return spoiled


def _spoil_sql(luck: Luck) -> None:
    def execute(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        when = luck.strikes("SQL statement")
        if when is None:
            return
        if when == AFTER:
            cursor.execute(statement, parameters)
        raise _broken(cursor.connection)

    commit = DefaultDialect.do_commit

    def spoiled_commit(self: Any, connection: Any) -> None:
        when = luck.strikes("SQL commit")
        if when == AFTER:
            commit(self, connection)
        if when is not None:
            raise _broken(connection)
        commit(self, connection)

    event.listen(Engine, "do_execute", execute)
    DefaultDialect.do_commit = spoiled_commit  # type: ignore[method-assign]


def _broken(connection: Any) -> Exception:
    """Return the driver's error for a connection that breaks off, which it does."""
    own = getattr(connection, "driver_connection", connection)
    if isinstance(own, sqlite3.Connection):
        return sqlite3.OperationalError("disk I/O error (injected)")
    own.close()
    return psycopg.OperationalError("server closed the connection unexpectedly (injected)")


def _spoil_s3(luck: Luck) -> None:
    where = {"endpoint_url": "http://injected"}
    answer = {"Error": {"Code": "InternalError", "Message": "injected"}, "ResponseMetadata": {"HTTPStatusCode": 500}}
    kinds: list[Callable[[], Exception]] = [
        lambda: ClientError(answer, "injected"),
        lambda: ReadTimeoutError(**where),
        lambda: ConnectionClosedError(**where),
    ]
    BaseClient._make_api_call = _around(  # type: ignore[attr-defined]
        luck, "S3 call", lambda: luck.chance.choice(kinds)(), BaseClient._make_api_call
    )


def _spoil_valkey(luck: Luck) -> None:
    kinds = (redis.ConnectionError, redis.TimeoutError)

    def error() -> Exception:
        return luck.chance.choice(kinds)("injected")

    # Inside of the client's own tries: how often it tries is the service's choice, and part of what is tested.
    send, parse = AbstractConnection.send_packed_command, redis.Redis.parse_response

    def spoiled_send(self: Any, *args: Any, **options: Any) -> Any:
        if luck.strikes("Valkey call", (BEFORE,)):
            raise error()
        return send(self, *args, **options)

    def spoiled_parse(self: Any, *args: Any, **options: Any) -> Any:
        answer = parse(self, *args, **options)
        if luck.strikes("Valkey call", (AFTER,)):
            raise error()
        return answer

    AbstractConnection.send_packed_command = spoiled_send  # type: ignore[method-assign]
    redis.Redis.parse_response = spoiled_parse  # type: ignore[method-assign]
