"""Writers of SQLite take turns: in order within a process, and none starves beside another process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from service.kit import write_turns
from service.kit.db import Database
from service.kit.errors import Unavailable
from service.kit.write_turns import WriteTurns
from tests.fixtures.processes import wait_until
from tests.fixtures.supervised import REPOSITORY

_BUSY_WRITER = """
import sys
from sqlalchemy import text
from service.kit.db import Database
database = Database(sys.argv[1])
while True:
    with database.write() as session:
        session.execute(text("UPDATE counts SET busy = busy + 1"))
"""


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path / 'a.db'}")
    with made.write() as session:
        session.execute(text("CREATE TABLE counts (busy INTEGER)"))
        session.execute(text("INSERT INTO counts VALUES (0)"))
    return made


def test_threads_get_the_lock_in_order_of_arrival() -> None:
    turns, order = WriteTurns(), list[int]()

    def work(number: int) -> None:
        with turns.hold():
            order.append(number)

    with turns.hold():
        threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
        for waiting, thread in enumerate(threads, start=1):
            thread.start()
            wait_until(lambda waiting=waiting: len(turns._waiting) == waiting, what="the thread to wait", seconds=30)
    for thread in threads:
        thread.join()
    assert order == list(range(20))


def test_a_thread_that_holds_the_lock_does_not_wait_for_itself() -> None:
    turns = WriteTurns()
    with turns.hold(), turns.hold():
        pass
    with turns.hold():
        pass


def test_a_thread_that_waited_too_long_leaves_the_line(monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    monkeypatch.setattr(write_turns, "WAIT_SECONDS", 0.2)
    refused: list[Exception] = []

    def write() -> None:
        try:
            with database.write() as session:
                session.execute(text("UPDATE counts SET busy = 1"))
        except Unavailable as error:
            refused.append(error)

    with database.write() as session:
        session.execute(text("SELECT 1"))
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert [type(error) for error in refused] == [Unavailable]
    assert "locked" in str(refused[0])
    write()
    assert len(refused) == 1, "the lock is free again"


@pytest.mark.slow
def test_a_writer_next_to_a_busy_process_gets_its_turn(database: Database) -> None:
    command = [sys.executable, "-c", _BUSY_WRITER, str(database.engine.url)]
    with subprocess.Popen(command, cwd=REPOSITORY) as busy:
        try:
            wait_until(lambda: _count(database) > 20, what="the busy writer", seconds=120)
            began, before = time.monotonic(), _count(database)
            for _ in range(50):
                with database.write() as session:
                    session.execute(text("SELECT 1"))
            seconds = time.monotonic() - began
        finally:
            busy.kill()
    others = _count(database) - before
    # SQLite's own waiting lets the other one write hundreds of times before each of these.
    assert others < 50 * 40, f"the other process wrote {others} times beside 50 writes that took {seconds:.1f} s"


def _count(database: Database) -> int:
    with database.read() as session:
        return session.execute(text("SELECT busy FROM counts")).scalar_one()
