"""SQL: the truth. SQLite (WAL) embedded, PostgreSQL in a cluster; one class hides what differs."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

from sqlalchemy import JSON, Double, Engine, MetaData, create_engine, event, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from service.kit import metrics
from service.kit.errors import NoSpace, Unavailable
from service.kit.write_turns import WAIT_SECONDS, WriteTurns, begin_immediate

_WRITES = "burnish_writes"
_MADE = "burnish_made"
_THEN = "burnish_then"
_LEAST_FREE_BYTES = 1 << 16
IDLE_SECONDS = 15
"""After how long PostgreSQL ends a transaction of a frozen or dead process: it may hold a lock on a job's row."""

Json = JSON().with_variant(JSONB(), "postgresql")


class Base(DeclarativeBase):
    """The root of all tables, with names for every constraint so that migrations can drop them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class db_now(FunctionElement[float]):  # noqa: N801 - reads as the SQL function that it is
    """The database's clock as unix seconds with a fraction: the only clock that leases go by."""

    type = Double[float]()
    inherit_cache = True


@compiles(db_now, "sqlite")
def _now_sqlite(_element: db_now, _compiler: SQLCompiler, **_: Any) -> str:
    # Constant within one statement, so that all rows of an UPDATE get the same time.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now, "postgresql")
def _now_postgresql(_element: db_now, _compiler: SQLCompiler, **_: Any) -> str:
    # Not `now()`: that is the time at which the transaction began, and one that waited for a lock would start leases
    # in the past.
    return "extract(epoch from clock_timestamp())::double precision"


class Database:
    """Sessions on one engine. A `write` session takes SQLite's write lock at once, so that it never deadlocks later."""

    def __init__(self, url: str) -> None:
        self.engine = _make_engine(url)
        self._read = sessionmaker(_engine_for_reading(self.engine), expire_on_commit=False)
        self._write = sessionmaker(self.engine.execution_options(**{_WRITES: True}), expire_on_commit=False)
        # In front of SQLite's own lock, which serves its waiters in no order.
        self._turns = WriteTurns() if self.engine.dialect.name == "sqlite" else None
        self.before_commit: Callable[[Session], None] | None = None
        """Called at the end of every `write`, inside its transaction."""
        event.listen(self._write, "after_flush", _note_made)
        event.listen(self._write, "after_commit", _do_then)

    @contextmanager
    def read(self) -> Generator[Session]:
        """Open a session for reading. Raises Unavailable if the database does not answer.

        Neither opening nor closing it waits for the database: an event loop may do both.
        """
        with _translate_errors(self.engine), self._read() as session:
            yield session

    @contextmanager
    def write(self) -> Generator[Session]:
        """Open one transaction: committed at the end of the block, rolled back by any exception.

        Raises Unavailable if the database does not answer.
        """
        turn = self._turns.hold() if self._turns else nullcontext()
        with turn, _translate_errors(self.engine), self._write.begin() as session:
            yield session
            # Inside the transaction: the audit log has an entry exactly if the change is committed.
            if self.before_commit is not None:
                self.before_commit(session)

    def check(self) -> None:
        """Raise Unavailable unless the database answers."""
        with self.read() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()


def after_commit(session: Session, action: Callable[[], object]) -> None:
    """Do something quick once the `write` transaction is committed; never if it is rolled back."""
    cast("list[Callable[[], object]]", session.info.setdefault(_THEN, [])).append(action)


def _do_then(session: Session) -> None:
    # A savepoint's release also fires `after_commit`, though the outer transaction may still be rolled back.
    if not session.in_nested_transaction():
        for action in cast("list[Callable[[], object]]", session.info.pop(_THEN, [])):
            action()


def made_ids(session: Session) -> Sequence[str]:
    """Return the public ids of the objects that the session has added so far."""
    session.flush()
    return cast("list[str]", session.info.get(_MADE, []))


def _note_made(session: Session, _flush: object) -> None:
    new_ids = cast("list[str]", session.info.setdefault(_MADE, []))
    new_ids.extend(item.id for item in session.new if isinstance(getattr(item, "id", None), str))


@contextmanager
def _translate_errors(engine: Engine) -> Generator[None]:
    try:
        yield
    except DBAPIError as error:
        # An IntegrityError or a bad statement is a bug or a rule of ours, and not an outage.
        if not isinstance(error, OperationalError) and not error.connection_invalidated:
            raise
        if "no such table" in str(error.orig):
            raise Unavailable("The database has no tables yet. Run `burnish-server migrate`.") from error
        if "disk is full" in str(error.orig) or _lacks_room(engine, str(error.orig)):
            raise NoSpace(
                "The disk of the database is full: nothing was kept. Free some space and try again."
            ) from error
        where = engine.url.render_as_string(hide_password=True)
        metrics.DATABASE_ERRORS.inc()
        raise Unavailable(f"The database at {where} does not answer: {error.orig}") from error


def _lacks_room(engine: Engine, problem: str) -> bool:
    """Return whether the disk is full: SQLite's error does not say so if it fails on the files next to the database."""
    path = engine.url.database
    if (
        engine.dialect.name != "sqlite"
        or path is None
        or ("I/O error" not in problem and "unable to open" not in problem)
    ):
        return False
    try:
        return shutil.disk_usage(os.path.dirname(path) or ".").free < _LEAST_FREE_BYTES
    except OSError:
        return False


def _make_engine(url: str) -> Engine:
    url_parts = make_url(url)
    if url_parts.get_backend_name() == "sqlite":
        # A connection for every thread that serves requests: one here costs little.
        engine = create_engine(url_parts, connect_args={"timeout": 30, "check_same_thread": False}, pool_size=40)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if url_parts.drivername in ("postgresql", "postgres"):
        url_parts = url_parts.set(drivername="postgresql+psycopg")
    # A link that died without a word must not hold a thread for longer than a lease lasts.
    patience = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    patience["tcp_user_timeout"] = 15_000
    # No overflow: its connections would be opened and closed again and again under load.
    engine = create_engine(url_parts, pool_pre_ping=True, pool_size=20, max_overflow=0, connect_args=patience)
    event.listen(engine, "connect", _set_up_postgresql)
    return engine


def _engine_for_reading(engine: Engine) -> Engine:
    """Return the engine as reading uses it.

    Each of PostgreSQL's statements sees what was committed before it, in a transaction or not (READ COMMITTED), so
    reading needs none: that spares two round trips a session. SQLite's costs nothing and reads one snapshot.
    """
    return engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="AUTOCOMMIT")


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # pysqlite would begin a deferred transaction before the first write: too late for BEGIN IMMEDIATE.
    connection.isolation_level = None  # the driver must not begin transactions by itself
    for pragma in (
        # Readers do not block the writer, and it does not block them.
        "journal_mode=WAL",
        # With NORMAL, WAL may lose the last commits at a power failure, and clients have their answers by then.
        "synchronous=FULL",
        # Off by default in SQLite, and a setting of the connection.
        "foreign_keys=ON",
        f"busy_timeout={WAIT_SECONDS * 1000:.0f}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _set_up_postgresql(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        # On every connection rather than on the role: a managed PostgreSQL may not let us change that.
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
    # SET is undone if the transaction in which it ran is rolled back.
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    # A reader keeps the plain BEGIN, which takes no lock until it reads.
    if not connection.get_execution_options().get(_WRITES, False):
        connection.exec_driver_sql("BEGIN")
        return
    try:
        begin_immediate(cast("sqlite3.Connection", connection.connection.driver_connection))
    except sqlite3.OperationalError as error:
        raise OperationalError("BEGIN IMMEDIATE", None, error) from error
