"""Streams of a job's events: one reader for all of them, bounds, and keys that stop working."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, aclosing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import update

from service.context import Context
from service.jobs import lifecycle, repository, stream
from service.jobs.lifecycle import JobFailureReason
from service.jobs.stream import EventStreams
from service.keys import repository as keys
from service.keys.service import Principal, create_key
from service.kit import ids
from service.kit.db import db_now
from service.kit.errors import Unavailable
from service.tables.jobs import JobRow, JobState
from service.tables.keys import ApiKeyRow
from tests.fixtures.databases import BOTH, api_on, client_with, key_of, project_of
from tests.fixtures.processes import wait_until
from tests.fixtures.service import RunningApi, make_context

STREAM = {"Accept": "text/event-stream"}


def add_job(context: Context, project_id: str, events: int = 0) -> str:
    """Make a queued job with events in Chinese."""
    job_id = ids.new_id(ids.JOB)
    numbers = {"n_epochs": 1, "batch_size": 1, "learning_rate_multiplier": 1.0}
    method = {"type": "supervised", "supervised": {"hyperparameters": numbers}}
    with context.db.write() as session:
        job = JobRow(
            id=job_id,
            project_id=project_id,
            state=JobState.QUEUED,
            model="tiny",
            base="tiny",
            model_name=f"ft:tiny:burnish::{job_id[-8:]}",
            method=method,
            training_file="file-x",
            seed=1,
        )
        session.add(job)
        session.flush()
        for number in range(events):
            repository.add_event(session, job_id, f"第{number}步")
    return job_id


def fail(context: Context, job_id: str) -> None:
    with context.db.write() as session:
        lifecycle.fail_job(session, job_id, JobFailureReason("boom", "坏了"))


@pytest.fixture
def context(tmp_path: Path) -> Generator[Context]:
    made = make_context(tmp_path)
    yield made
    made.db.close()


@pytest.fixture
def principal(context: Context) -> Principal:
    with context.db.write() as session:
        key, _ = create_key(session, context.hmac_key, project="desk", name="test")
    return Principal(project_id=key.project_id, key_id=key.id)


@contextmanager
def counted_reads(context: Context) -> Generator[list[str]]:
    """Collect the statements that read events."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM job_events" in statement:
            seen.append(statement)

    sqlalchemy_event.listen(context.db.engine, "before_cursor_execute", note)
    yield seen
    sqlalchemy_event.remove(context.db.engine, "before_cursor_execute", note)


async def take(messages: AsyncGenerator[bytes], count: int) -> list[bytes]:
    return [await anext(messages) for _ in range(count)]


async def rest(messages: AsyncGenerator[bytes]) -> list[bytes]:
    return [message async for message in messages if not message.startswith(b":")]


def run(story: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))


def test_two_hundred_streams_of_a_job_have_one_reader_and_the_same_text(context: Context, principal: Principal) -> None:
    job_id = add_job(context, principal.project_id, events=3)

    async def story() -> None:
        streams = EventStreams(context)
        followers = [streams.follow_job(job_id, 0, principal) for _ in range(200)]
        with counted_reads(context) as reads:
            first = await asyncio.gather(*(take(messages, 3) for messages in followers))
        assert len(reads) < 50
        assert streams.count_readers(principal.project_id) == 1
        assert all(messages == first[0] for messages in first)
        assert '"message":"第2步"' in first[0][2].decode()
        await asyncio.to_thread(fail, context, job_id)
        last = await asyncio.gather(*map(rest, followers))
        assert all(messages == last[0] for messages in last)
        assert "坏了" in last[0][0].decode()
        assert last[0][-1].startswith(b"event: done\n")
        assert streams.count_readers(principal.project_id) == 0

    run(story)


def test_a_stream_that_joins_gets_what_it_has_not_seen(context: Context, principal: Principal) -> None:
    """Whether its position is in the window, before it, or at its end."""
    job_id = add_job(context, principal.project_id, events=6)
    with context.db.read() as session:
        positions = [event.seq for event in repository.events_since(session, job_id, 0)]

    async def story() -> None:
        streams = EventStreams(context)
        async with aclosing(streams.follow_job(job_id, positions[2], principal)) as late:
            tail = await take(late, 3)
            async with aclosing(streams.follow_job(job_id, 0, principal)) as whole:
                assert (await take(whole, 6))[3:] == tail
            async with aclosing(streams.follow_job(job_id, positions[4], principal)) as later:
                assert await take(later, 1) == tail[2:]
            assert streams.count_readers(principal.project_id) == 1
        assert streams.count_readers(principal.project_id) == 0

    run(story)


@pytest.mark.slow
def test_a_slow_reader_keeps_nothing_in_memory_and_misses_nothing(
    context: Context, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_WINDOW_EVENTS", 10)
    job_id = add_job(context, principal.project_id, events=1200)

    async def story() -> None:
        streams = EventStreams(context)
        slow, quick = (streams.follow_job(job_id, 0, principal) for _ in range(2))
        first = await take(slow, 1)
        everything = await take(quick, 1200)
        (reader,) = streams._readers.values()
        assert len(reader._window) == 10
        assert first + await take(slow, 1199) == everything
        assert len(set(everything)) == 1200
        await slow.aclose()
        await quick.aclose()

    run(story)


def test_waiting_holds_no_thread(context: Context, principal: Principal) -> None:
    jobs = [add_job(context, principal.project_id, events=1) for _ in range(30)]
    before = set(threading.enumerate())  # those of servers in other tests' fixtures

    async def story() -> None:
        streams = EventStreams(context)
        followers = [streams.follow_job(job_id, 0, principal) for job_id in jobs]
        await asyncio.gather(*(take(messages, 1) for messages in followers))
        waiting = [asyncio.create_task(take(messages, 1)) for messages in followers]
        await asyncio.sleep(0.3)
        new = set(threading.enumerate()) - before
        workers = [thread for thread in new if thread.name == "AnyIO worker thread"]
        assert len(workers) <= stream._READS_AT_ONCE + 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert streams.count_readers(principal.project_id) == 0

    run(story)


def test_a_database_that_is_away_for_a_while_ends_no_stream(
    context: Context, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = add_job(context, principal.project_id, events=1)

    async def story() -> None:
        streams = EventStreams(context)
        messages = streams.follow_job(job_id, 0, principal)
        await take(messages, 1)
        failures = 0

        def away(*_: Any) -> Any:
            nonlocal failures
            failures += 1
            raise Unavailable("The database is away.")

        with monkeypatch.context() as patched:
            patched.setattr(stream, "find_reading_keys", away)
            waiting = asyncio.create_task(take(messages, 1))
            while failures < 3:
                await asyncio.sleep(0.02)
            assert not waiting.done()
        await asyncio.to_thread(fail, context, job_id)
        assert "坏了" in (await waiting)[0].decode()
        await messages.aclose()

    run(story)


def test_an_unexpected_error_of_the_reader_ends_its_streams_without_done(
    context: Context, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No stream waits for a reader that is gone; the client connects again."""
    job_id = add_job(context, principal.project_id, events=1)

    def broken(*_: Any) -> Any:
        raise ValueError("unforeseen")

    async def story() -> None:
        streams = EventStreams(context)
        messages = streams.follow_job(job_id, 0, principal)
        await take(messages, 1)
        monkeypatch.setattr(stream, "find_reading_keys", broken)
        assert await rest(messages) == []
        assert streams.count_readers(principal.project_id) == 0

    run(story)


def test_a_deleted_job_ends_its_streams(context: Context, principal: Principal) -> None:
    job_id = add_job(context, principal.project_id, events=1)

    def delete() -> None:
        with context.db.write() as session:
            job = repository.by_id(session, job_id)
            assert job is not None
            repository.delete_job_row(session, job)

    async def story() -> None:
        messages = EventStreams(context).follow_job(job_id, 0, principal)
        await take(messages, 1)
        await asyncio.to_thread(delete)
        assert await rest(messages) == []

    run(story)


def test_quiet_streams_are_kept_alive(context: Context, principal: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_KEEP_ALIVE_SECONDS", 0.1)
    job_id = add_job(context, principal.project_id)

    async def story() -> None:
        messages = EventStreams(context).follow_job(job_id, 0, principal)
        assert await take(messages, 3) == [b": keep-alive\n\n"] * 3
        await messages.aclose()

    run(story)


@pytest.fixture(params=BOTH)
def api(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[RunningApi]:
    with api_on(request.param, tmp_path, open_event_streams_per_project=2, open_event_streams=3) as running:
        yield running


def open_stream(stack: ExitStack, client: httpx.Client, job_id: str) -> httpx.Response:
    return stack.enter_context(client.stream("GET", f"/fine_tuning/jobs/{job_id}/events", headers=STREAM))


def test_streams_beyond_the_bound_are_refused_until_one_ends(api: RunningApi) -> None:
    with ExitStack() as stack:
        greedy, quiet, third = (stack.enter_context(client_with(api, name)) for name in ("greedy", "安静", "third"))
        jobs = {client: add_job(api.context, project_of(client), events=1) for client in (greedy, quiet, third)}
        held = [open_stream(stack, greedy, jobs[greedy]) for _ in range(2)]
        assert [response.status_code for response in held] == [200, 200]
        refused = greedy.get(f"/fine_tuning/jobs/{jobs[greedy]}/events", headers=STREAM)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert refused.json()["error"]["code"] == "too_many_at_once"
        assert "2 event streams of this project" in refused.json()["error"]["message"]
        assert greedy.get(f"/fine_tuning/jobs/{jobs[greedy]}/events").status_code == 200
        assert open_stream(stack, quiet, jobs[quiet]).status_code == 200
        full = third.get(f"/fine_tuning/jobs/{jobs[third]}/events", headers=STREAM)
        assert "3 event streams in this process" in full.json()["error"]["message"]
        held[0].close()

        def opens() -> bool:
            with greedy.stream("GET", f"/fine_tuning/jobs/{jobs[greedy]}/events", headers=STREAM) as response:
                return response.status_code == 200

        wait_until(opens, what="a place for another stream")


def revoke(api: RunningApi, client: httpx.Client) -> None:
    with api.context.db.write() as session:
        assert keys.mark_revoked(session, key_of(client))


def change_key(api: RunningApi, client: httpx.Client, **columns: Any) -> None:
    with api.context.db.write() as session:
        session.execute(update(ApiKeyRow).where(ApiKeyRow.id == key_of(client)).values(**columns))


def expire(api: RunningApi, client: httpx.Client) -> None:
    change_key(api, client, expires_at=db_now() - 1)


def narrow(api: RunningApi, client: httpx.Client) -> None:
    change_key(api, client, scopes="write")


def delete_project(api: RunningApi, client: httpx.Client) -> None:
    with api.context.db.write() as session:
        assert keys.mark_deleted(session, project_of(client))


@pytest.mark.slow
@pytest.mark.parametrize("end", [revoke, expire, narrow, delete_project])
def test_a_stream_ends_soon_after_its_key_may_not_read_any_more(
    api: RunningApi, end: Callable[[RunningApi, httpx.Client], None]
) -> None:
    """Another key's stream of the same job goes on, unless the project is gone; the next request is told why."""
    with ExitStack() as stack:
        client, other = (stack.enter_context(client_with(api, "desk")) for _ in range(2))
        job_id = add_job(api.context, project_of(client), events=1)
        ending, going_on = open_stream(stack, client, job_id), open_stream(stack, other, job_id)
        lines = going_on.iter_lines()
        assert "第0步" in "".join(next(lines) for _ in range(4))
        end(api, client)
        assert "event: done" not in "".join(ending.iter_text())
        assert client.get(f"/fine_tuning/jobs/{job_id}/events", headers=STREAM).status_code in (401, 403)
        if end is not delete_project:
            fail(api.context, job_id)
            assert any(line == "event: done" for line in lines)
