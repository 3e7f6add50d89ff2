from __future__ import annotations

from collections.abc import Callable

import pytest

from burnish import APIConnectionError, InternalServerError, JobFailed, NotFoundError, WaitTimeoutError
from burnish._sse import Decoder
from tests.clients.scripted import SSE, Answer, Driver, Server, a_job, an_event, frame, refusal

JOBS = "/v1/fine_tuning/jobs"
EVENTS = f"{JOBS}/ftjob-1/events"
DONE = frame(a_job(), "done")


def ids(events: list[object]) -> list[str]:
    return [event.id for event in events]


def test_the_stream_ends_with_the_job(driver: Driver, server: Server) -> None:
    # U+2028 ends a line for str.splitlines, but not in an event stream.
    first = an_event(1, message="一\u2028二\x85三")
    server.on("GET", EVENTS, Answer([b": hello\n\n", frame(first), frame(an_event(2)), DONE], headers=SSE))
    events, job = driver.stream("ftjob-1")
    assert ids(events) == ["ftevent-1", "ftevent-2"]
    assert events[0].message == "一\u2028二\x85三"
    assert job.fine_tuned_model == "ft:tiny:org::1"
    assert job.is_terminal
    assert server.seen[0].headers["accept"] == "text/event-stream"
    assert "last-event-id" not in server.seen[0].headers


def test_it_does_not_wait_for_the_server_to_close(driver: Driver, server: Server) -> None:
    def body() -> object:
        yield DONE
        yield from server.silence()

    server.on("GET", EVENTS, lambda _: Answer(body(), headers=SSE))
    assert driver.stream("ftjob-1")[1].status == "succeeded"


def test_it_resumes_after_a_broken_connection(driver: Driver, server: Server, naps: list[float]) -> None:
    half = frame(an_event(3))[:40]
    server.on(
        "GET",
        EVENTS,
        [
            Answer([frame(an_event(1)), frame(an_event(2)), half], headers=SSE, cut=True),
            refusal(503, headers={"retry-after-ms": "20"}),
            Answer([frame(an_event(3))], headers=SSE),
            Answer([frame(an_event(4)), DONE], headers=SSE),
        ],
    )
    events, job = driver.stream("ftjob-1")
    assert ids(events) == [f"ftevent-{number}" for number in (1, 2, 3, 4)]
    assert job.status == "succeeded"
    resumed = [seen.headers.get("last-event-id") for seen in server.seen]
    assert resumed == [None, "ftevent-2", "ftevent-2", "ftevent-3"]
    assert naps[1] == 0.02


def test_a_server_that_begins_anew_repeats_nothing(driver: Driver, server: Server, naps: list[float]) -> None:
    beginning = [frame(an_event(1)), frame(an_event(2))]
    again = Answer([*beginning, frame(an_event(3)), DONE], headers=SSE)
    server.on("GET", EVENTS, [Answer(beginning, headers=SSE, cut=True), again])
    assert ids(driver.stream("ftjob-1")[0]) == ["ftevent-1", "ftevent-2", "ftevent-3"]


def test_a_silent_connection_is_replaced(
    driver: Driver, server: Server, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("burnish._stream.QUIET", 0.1)
    silent = Answer(server.silence(), headers=SSE)
    server.on("GET", EVENTS, [silent, Answer([frame(an_event(1)), DONE], headers=SSE)])
    assert ids(driver.stream("ftjob-1")[0]) == ["ftevent-1"]
    assert len(server.seen) == 2


def test_the_server_may_ask_for_a_pause(driver: Driver, server: Server, naps: list[float]) -> None:
    server.on("GET", EVENTS, [Answer([b"retry: 3000\n\n"], headers=SSE), Answer([DONE], headers=SSE)])
    driver.stream("ftjob-1")
    assert naps == [3.0]


@pytest.mark.slow
def test_it_gives_up_at_last(driver: Driver, server: Server, naps: list[float]) -> None:
    server.on("GET", EVENTS, Answer([b""], headers=SSE, cut=True))
    with pytest.raises(APIConnectionError, match="broke"):
        driver.stream("ftjob-1")
    assert len(naps) == 12
    server.on("GET", EVENTS, refusal(500, "坏了"))
    with pytest.raises(InternalServerError, match="坏了"):
        driver.stream("ftjob-1")


def test_a_missing_job_is_said_at_once(driver: Driver, server: Server, naps: list[float]) -> None:
    server.on("GET", EVENTS, refusal(404, "No such job."))
    with pytest.raises(NotFoundError, match="No such job"):
        driver.stream("ftjob-1")
    assert naps == []


def test_a_stream_of_something_else(driver: Driver, server: Server) -> None:
    server.on("GET", EVENTS, Answer([b"event: done\ndata: {}\n\n"], headers=SSE))
    with pytest.raises(APIConnectionError, match="event stream of ftjob-1 cannot be read"):
        driver.stream("ftjob-1")


def test_wait_gives_the_job_and_its_events(driver: Driver, server: Server) -> None:
    server.on("GET", EVENTS, Answer([frame(an_event(1)), DONE], headers=SSE))
    events: list[object] = []
    assert driver.call("jobs.wait", "ftjob-1", on_event=events.append).status == "succeeded"
    assert ids(events) == ["ftevent-1"]


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        (
            a_job("failed", error={"code": "bad_rows", "message": "第3行不是JSON", "param": "training_file"}),
            "Job ftjob-1 failed: 第3行不是JSON",
        ),
        (a_job("failed"), "Job ftjob-1 failed; the server gave no reason."),
        (a_job("cancelled"), "Job ftjob-1 was cancelled."),
    ],
)
def test_wait_raises_for_a_job_without_a_model(
    driver: Driver, server: Server, job: dict[str, object], sentence: str
) -> None:
    server.on("GET", EVENTS, Answer([frame(job, "done")], headers=SSE))
    with pytest.raises(JobFailed) as caught:
        driver.call("jobs.wait", "ftjob-1")
    assert str(caught.value) == sentence
    assert caught.value.job.status == job["status"]
    assert driver.call("jobs.wait", "ftjob-1", raise_on_failure=False).status == job["status"]


def test_wait_ends_when_the_time_is_over(driver: Driver, server: Server) -> None:
    server.on("GET", EVENTS, lambda _: Answer(server.silence(), headers=SSE))
    with pytest.raises(WaitTimeoutError, match=r"had not ended after 0\.2 s"):
        driver.call("jobs.wait", "ftjob-1", timeout=0.2)


def test_wait_ends_in_time_without_an_answer(make: Callable[..., Driver], server: Server) -> None:
    server.on("GET", EVENTS, refusal(503))
    with pytest.raises(WaitTimeoutError):
        make().call("jobs.wait", "ftjob-1", timeout=0.2)


ORDER = {"model": "tiny", "training_file": "file-1"}


def test_create_and_wait(driver: Driver, server: Server) -> None:
    server.on("POST", JOBS, Answer(a_job("queued")))
    server.on("GET", EVENTS, Answer([frame(an_event(1)), DONE], headers=SSE))
    events: list[object] = []
    job = driver.call("jobs.create_and_wait", **ORDER, timeout=7, wait_timeout=60, on_event=events.append)
    assert (job.status, ids(events)) == ("succeeded", ["ftevent-1"])
    assert server.seen[0].json() == {**ORDER, "timeout": 7}, "the job's own timeout is the server's business"


def test_create_and_wait_keeps_its_idempotency_key(driver: Driver, server: Server, naps: list[float]) -> None:
    server.on("POST", JOBS, [refusal(503), Answer(a_job("queued"))])
    server.on("GET", EVENTS, lambda _: Answer(server.silence(), headers=SSE))
    with pytest.raises(WaitTimeoutError, match="ftjob-1 had not ended after 0"):
        driver.call("jobs.create_and_wait", **ORDER, wait_timeout=0.2, idempotency_key="today")
    server.on("GET", EVENTS, Answer([DONE], headers=SSE))
    assert driver.call("jobs.create_and_wait", **ORDER, idempotency_key="today").status == "succeeded"
    keys = [seen.headers["idempotency-key"] for seen in server.seen if seen.method == "POST"]
    assert keys == ["today"] * 3


def test_create_and_wait_raises_for_a_failed_job_unless_it_shall_not(driver: Driver, server: Server) -> None:
    server.on("POST", JOBS, Answer(a_job("queued")))
    server.on("GET", EVENTS, Answer([frame(a_job("failed"), "done")], headers=SSE))
    with pytest.raises(JobFailed, match="Job ftjob-1 failed"):
        driver.call("jobs.create_and_wait", **ORDER)
    assert driver.call("jobs.create_and_wait", **ORDER, raise_on_failure=False).status == "failed"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_the_decoder_does_not_mind_where_the_bytes_are_split(newline: str) -> None:
    text = "\ufeff: note\nid: 1\nevent: x\ndata: 你好\ndata:  two\n\ndata\n\nid: 2\ndata: 😀\n\nevent: no data\n\n"
    raw = text.replace("\n", newline).encode()
    want = [("x", "你好\n two", "1"), ("message", "", "1"), ("message", "😀", "2")]
    for cut in range(len(raw)):
        decoder = Decoder()
        assert decoder.feed(raw[:cut]) + decoder.feed(raw[cut:]) == want, cut
    decoder = Decoder()
    assert [frame for byte in raw for frame in decoder.feed(bytes([byte]))] == want
