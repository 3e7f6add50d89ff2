"""How refused calls are counted: nothing is lost, and neither the log nor the memory grows with their number."""

from __future__ import annotations

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from service.audit.refusals import RefusalLog
from service.context import Context
from service.kit.call import ApiCall
from service.kit.errors import Unavailable
from service.tables.audit import AuditRow, join_count, split_count
from tests.fixtures.service import make_context


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def context(tmp_path: Path) -> Generator[Context]:
    made = make_context(tmp_path)
    yield made
    made.db.close()


def refused(number: int = 0, *, key: str = "key_a", method: str = "DELETE", **more: object) -> ApiCall:
    call = ApiCall(f"req_{number}", method, route="/v1/files/{file_id}", params={"file_id": f"file-{number}"})
    call.key_id, call.project_id = key, "proj_own"
    for name, value in more.items():
        setattr(call, name, value)
    return call


def rows(context: Context) -> list[tuple[str | None, int | None, int]]:
    with context.db.read() as session:
        found = session.scalars(select(AuditRow).order_by(AuditRow.seq))
        return [(row.object_id, row.status_code, split_count(row.request_id)[0]) for row in found]


def test_a_window_is_one_entry(context: Context) -> None:
    clock = Clock()
    log = RefusalLog(context.db, clock=clock)
    assert log.count_refusal(refused(1), 403)
    log.write_due()
    assert not any(log.count_refusal(refused(number), 403) for number in range(2, 12))
    log.write_due()
    assert rows(context) == [("file-1", 403, 1)]
    clock.now += 60
    log.write_due()
    assert rows(context)[1:] == [("file-11", 403, 10)]
    clock.now += 60
    log.write_due()
    assert len(rows(context)) == 2, "nothing happened in the window after"
    assert log.count_refusal(refused(12), 403), "so that the next is a first one again"


def test_kinds_are_separate_and_other_calls_are_not_counted(context: Context) -> None:
    log = RefusalLog(context.db, clock=Clock())
    for call, status in ((refused(1), 403), (refused(2), 404), (refused(3, key="key_b"), 403)):
        assert log.count_refusal(call, status)
        log.write_due()
    assert not log.count_refusal(refused(4, method="GET"), 403)
    assert not log.count_refusal(refused(5, key_id=None), 403)
    assert not log.count_refusal(refused(6, unrecorded=True), 429)
    log.write_due(everything=True)
    assert rows(context) == [("file-1", 403, 1), ("file-2", 404, 1), ("file-3", 403, 1)]


def test_the_kinds_that_are_kept_are_bounded(context: Context) -> None:
    log = RefusalLog(context.db, most_kinds=10, clock=Clock())
    for number in range(100):
        for _ in range(2):
            if log.count_refusal(refused(number, key=f"key_{number}"), 403):
                log.write_due()
    log.write_due(everything=True)
    assert sum(count for _, _, count in rows(context)) == 200
    assert len(log._series) <= 21  # pyright: ignore[reportPrivateUsage]


def test_what_could_not_be_written_is_written_later(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    log = RefusalLog(context.db, clock=clock)

    def away(*_: object, **__: object) -> None:
        raise Unavailable("The database is away.")

    with monkeypatch.context() as patch:
        patch.setattr("service.audit.repository.add_audit_row", away)
        assert log.count_refusal(refused(1), 403)
        log.write_due()
        assert not log.count_refusal(refused(2), 403), "the database is left alone for a moment"
    clock.now += 1
    log.write_due()
    assert rows(context) == [("file-2", 403, 2)]


def test_threads_lose_none(context: Context) -> None:
    log = RefusalLog(context.db, window=0.0)
    start = threading.Barrier(8)

    def refuse(number: int) -> None:
        start.wait()
        for _ in range(20):
            log.count_refusal(refused(number), 403)
            log.write_due()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(refuse, range(8)))
    log.write_due(everything=True)
    assert sum(count for _, _, count in rows(context)) == 160


@pytest.mark.parametrize("request_id", ["req_0123", "a" * 128])
def test_a_count_and_an_id_share_a_column(request_id: str) -> None:
    assert split_count(join_count(1, request_id)) == (1, request_id)
    joined = join_count(123456, request_id)
    assert len(joined) <= 128
    count, last = split_count(joined)
    assert count == 123456
    assert last
    assert request_id.startswith(last)
    assert split_count(None) == (1, None)
