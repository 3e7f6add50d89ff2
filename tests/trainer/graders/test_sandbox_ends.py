"""How a Python grader's process ends: the machine may be at fault until the source runs, the source from then on."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.processes import wait_until
from tests.trainer.graders.scenes import jails_of
from trainer.graders import Failure
from trainer.graders.sandbox import Leash, SandboxLimits, encode_call, run_python, run_python_call, run_python_on_all

pytestmark = pytest.mark.integration

SAMPLE, ITEM = {"output_text": "答案是巴黎"}, {"answer": "巴黎"}
PATIENT = SandboxLimits(wall_seconds=60.0)


def run(source: str, **limits: Any) -> float:
    return run_python(source, SAMPLE, ITEM, limits=SandboxLimits(**{"wall_seconds": 60.0, **limits}))


def _by_a_call(body: str) -> str:
    """Return a source whose function does this, and would return 1."""
    return f"import os, time\ndef grade(sample, item):\n    {body}\n    return 1"


CLOSES = _by_a_call("os.close(3); time.sleep(1000)")


def test_a_grader_that_closes_its_pipe_and_sleeps_has_failed() -> None:
    with pytest.raises(Failure) as raised:
        run(CLOSES)
    assert raised.value.flag == "python_grader_runtime_error"
    assert "closed the pipe" in raised.value.message
    (failure,) = run_python_on_all(CLOSES, [({"output_text": "答"}, {})], limits=PATIENT)
    assert isinstance(failure, Failure)
    assert failure.flag == "python_grader_runtime_error"


FORGED = '{"error": "no machine", "kind": "sandbox"}'


@pytest.mark.parametrize(
    "written",
    [FORGED, f"+{FORGED}", f"+>{FORGED}", f"\\n{FORGED}", f">{FORGED}"],
)
@pytest.mark.parametrize("at", ["import", "call"])
def test_no_source_can_say_that_the_machine_is_at_fault(written: str, at: str) -> None:
    """It would end a training as a fault of its worker: as many attempts as those have, and an operator's night."""
    lie = f"os.write(3, {written.encode()!r}); os._exit(0)".replace("\\\\n", "\\n")
    source = _by_a_call(lie) if at == "call" else f"import os\n{lie}"
    with pytest.raises(Failure) as raised:
        run(source)
    assert (raised.value.flag, raised.value.kind) == ("python_grader_runtime_error", None)
    (failure,) = run_python_on_all(source, [({}, {})], limits=PATIENT)
    assert isinstance(failure, Failure)
    assert failure.flag == "python_grader_runtime_error"


@pytest.mark.parametrize("body", ["os._exit(1)", "__import__('ctypes').string_at(0)", "os.close(3)"])
def test_an_end_while_the_source_runs_is_the_graders(body: str) -> None:
    with pytest.raises(Failure) as raised:
        run(_by_a_call(body))
    assert raised.value.flag == "python_grader_runtime_error"


def test_a_machine_that_cannot_begin_is_at_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a program to start, with one that ends at once, and with one that never begins."""
    for program, why in ((None, "cannot start a process"), ("exit 7", "status 7"), ("exec sleep 9", "has not begun")):
        interpreter = tmp_path / "python"
        if program is not None:
            interpreter.write_text(f"#!/bin/sh\n{program}\n")
            interpreter.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(interpreter))
        with pytest.raises(Failure) as raised:
            run("def grade(sample, item):\n    return 1", wall_seconds=0.5)
        assert (raised.value.flag, raised.value.kind) == ("python_grader_server_error", "sandbox")
        assert why in raised.value.message


def test_a_leash_ends_the_process_that_runs_and_each_after_it() -> None:
    source, leash = _by_a_call("time.sleep(1000)"), Leash()
    ended = threading.Event()

    def grade() -> None:
        with suppress(Failure):
            run_python_call(source, encode_call(SAMPLE, ITEM), limits=PATIENT, leash=leash)
        ended.set()

    thread = threading.Thread(target=grade)
    thread.start()
    wait_until(lambda: bool(jails_of(os.getpid())), what="the grader's process")
    leash.cut_off()
    thread.join(20)
    assert ended.is_set()
    assert not jails_of(os.getpid())
    with pytest.raises(Failure):
        run_python_call(source, encode_call(SAMPLE, ITEM), limits=PATIENT, leash=leash)
