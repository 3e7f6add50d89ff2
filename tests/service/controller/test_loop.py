from __future__ import annotations

import logging
import threading

import pytest

from service.controller import loop
from service.controller.loop import ControllerStep, Outages, run_steps, run_until_it_works
from service.kit.errors import Unavailable
from service.kit.settings import SettingsError
from service.queue.base import QueueUnavailable


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(loop, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(loop, "_LONGEST_WAIT", 0.01)
    caplog.set_level(logging.INFO, "service.controller")


class Flaky:
    """Fails a number of times, then works; sets `works` when it has worked twice."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.successes = 0
        self.works = threading.Event()

    def __call__(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.successes += 1
        if self.successes == 2:
            self.works.set()


def run_until(stop: threading.Event, steps: list[ControllerStep], *events: threading.Event) -> None:
    runner = threading.Thread(target=run_steps, args=(steps, stop, Outages()))
    runner.start()
    for event in events:
        assert event.wait(20)
    stop.set()
    runner.join(20)
    assert not runner.is_alive()


def test_an_outage_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    first, second = (Flaky(*[Unavailable("The database is away.") for _ in range(3)]) for _ in range(2))
    both = threading.Barrier(2)

    def together(flaky: Flaky) -> object:
        def run() -> None:
            if flaky.errors or flaky.successes == 0:
                both.wait(20)
            flaky()

        return run

    steps = [ControllerStep("a", 0.001, together(first)), ControllerStep("b", 0.001, together(second))]  # type: ignore[arg-type]
    run_until(threading.Event(), steps, first.works, second.works)
    told = [record.getMessage() for record in caplog.records]
    assert sum("The database is away." in message for message in told) == 1
    assert sum("works again" in message for message in told) == 1
    assert not any(record.exc_info for record in caplog.records)


def test_two_outages_are_logged_separately(caplog: pytest.LogCaptureFixture) -> None:
    outages = Outages()
    outages.note_failure("a", Unavailable("The database is away."))
    outages.note_failure("b", QueueUnavailable("The queue is away."))
    outages.note_failure("a", Unavailable("The database is away."))
    assert len(caplog.records) == 2
    outages.note_recovery("b")
    outages.note_recovery("b")
    outages.note_failure("b", QueueUnavailable("The queue is away."))
    assert len(caplog.records) == 4


def test_a_bug_is_logged_with_its_trace_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    broken, fine = Flaky(KeyError("oops")), Flaky()
    run_until(
        threading.Event(),
        [ControllerStep("broken", 0.001, broken), ControllerStep("fine", 0.001, fine)],
        broken.works,
        fine.works,
    )
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "broken" in record.getMessage()


def test_a_step_that_hangs_holds_up_no_other_and_not_the_end() -> None:
    release, fine, stop = threading.Event(), Flaky(), threading.Event()
    steps = [ControllerStep("hangs", 0, lambda: release.wait(60)), ControllerStep("fine", 0.001, fine)]
    runner = threading.Thread(target=run_steps, args=(steps, stop, Outages()), kwargs={"patience": 0.05})
    runner.start()
    assert fine.works.wait(20)
    stop.set()
    runner.join(20)
    assert not runner.is_alive()
    release.set()


def test_every_step_is_closed_at_the_end() -> None:
    closed, flaky = threading.Event(), Flaky()
    run_until(threading.Event(), [ControllerStep("a", 0.001, flaky, closed.set)], flaky.works)
    assert closed.is_set()


def test_wrong_settings_are_not_tried_again() -> None:
    step = ControllerStep("schema", 0, Flaky(SettingsError("The schema is behind.")))
    with pytest.raises(SettingsError):
        run_until_it_works(step, threading.Event(), Outages())


def test_a_stop_ends_the_waiting() -> None:
    stop = threading.Event()

    def fail() -> None:
        stop.set()
        raise Unavailable("The database is away.")

    run_until_it_works(ControllerStep("schema", 0, fail), stop, Outages())
