from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import datetime
from typing import Any

import pytest

from service.kit.log import SparseLog, escape_controls

PROGRAM = """
import logging, sys, threading, warnings
from anyio import run, to_thread
from service.kit.log import REQUEST_ID, carry_context, in_own_context, log_subject, set_subject, set_up_logging
set_up_logging("worker", sys.argv[1], "worker-1")
log = logging.getLogger("service.x")
async def serve():
    REQUEST_ID.set("req_1")
    await to_thread.run_sync(log.warning, "盘满了")
log.info("before")
run(serve)
log.info("after")
def work():
    set_subject("ftjob-1", 2)
    log.info("claimed\\nby %s", "me")
    thread = threading.Thread(target=carry_context(lambda: log.info("beside")))
    thread.start()
    thread.join()
in_own_context(work)
with log_subject("ftjob-2"):
    log.info("about")
log.info("elsewhere", extra={"job_id": "ftjob-3"})
try:
    1 / 0
except ZeroDivisionError:
    log.exception("broke")
logging.getLogger("uvicorn.error").info("Started")
warnings.warn("old")
"""


def lines(form: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, form], capture_output=True, check=True, timeout=60)
    return done.stderr.decode().splitlines()


def entries(form: str = "json") -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(form)]


def test_text_names_the_request_the_job_and_the_attempt() -> None:
    told = [line.partition("Z ")[2] for line in lines("text")]
    assert told[:3] == [
        "worker-1 INFO service.x: before",
        "worker-1 WARNING service.x [req_1]: 盘满了",
        "worker-1 INFO service.x: after",
    ]
    assert told[3] == "worker-1 INFO service.x [ftjob-1 2]: claimed\\nby me"
    assert "worker-1 INFO service.x [ftjob-1 2]: beside" in told
    assert "worker-1 INFO service.x [ftjob-2]: about" in told


def test_json_is_one_object_a_line_with_its_ids() -> None:
    said = entries()
    assert all(
        {"time", "level", "role", "process", "logger", "message"} <= set(entry)
        and (entry["role"], entry["process"]) == ("worker", "worker-1")
        and datetime.fromisoformat(entry["time"]).utcoffset() is not None
        for entry in said
    )
    ids = [(entry["message"], *(entry.get(name) for name in ("request_id", "job_id", "attempt"))) for entry in said]
    assert ids[:7] == [
        ("before", None, None, None),
        ("盘满了", "req_1", None, None),
        ("after", None, None, None),
        ("claimed\nby me", None, "ftjob-1", 2),
        ("beside", None, "ftjob-1", 2),
        ("about", None, "ftjob-2", None),
        ("elsewhere", None, "ftjob-3", None),
    ]
    assert (said[7]["level"], "ZeroDivisionError: division by zero" in said[7]["exception"]) == ("error", True)
    assert (said[8]["logger"], said[8]["message"]) == ("uvicorn.error", "Started")
    assert "old" in said[9]["message"]
    assert all("trace_id" not in entry for entry in said)


def test_a_stream_that_is_not_a_terminal_gets_json() -> None:
    assert entries("auto")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("盘满了, fine, 👩\u200d🔧", "盘满了, fine, 👩\u200d🔧"),
        ("a\nb\r\nc\td", r"a\nb\r\nc\td"),
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("\x9b31m\x7f\x00", r"\x9b31m\x7f\x00"),
        ("\u202egnp.exe\u2066x\u2069\u200f", r"\u202egnp.exe\u2066x\u2069\u200f"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("half \ud800", r"half \ud800"),
    ],
)
def test_what_would_move_the_cursor_is_escaped(raw: str, shown: str) -> None:
    assert escape_controls(raw) == shown


FORGED = """
import logging
from service.kit.log import set_up_logging
set_up_logging("api", "text")
log = logging.getLogger("x")
forged = "a\\n2026-01-01T00:00:00Z api INFO x: 假的\\x1b[2J"
log.info("%s", forged, extra={"request_id": "r\\x1b\\n"})
try:
    raise ValueError(forged)
except ValueError:
    log.exception("broke")
"""


def test_no_text_makes_a_line_that_looks_like_an_entry() -> None:
    done = subprocess.run([sys.executable, "-c", FORGED], capture_output=True, check=True, timeout=60)
    told = done.stderr.decode().splitlines()
    assert "\x1b" not in done.stderr.decode()
    entries = [line for line in told if not line.startswith("  ")]
    assert len(entries) == 2
    assert any("ValueError: a" in line for line in told)
    assert any("Traceback" in line for line in told)


def test_what_happens_often_is_logged_at_once_and_then_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    sparse = SparseLog(logging.getLogger("sparse"), seconds=10.0, clock=lambda: now[0])
    for number in range(1000):
        sparse.log_sparsely("refused %d of %s", number, "100%")
    now[0] = 9.0
    sparse.flush()
    assert [record.getMessage() for record in caplog.records] == ["refused 0 of 100%"]
    now[0] = 10.0
    sparse.flush()
    sparse.flush()
    said = [record.getMessage() for record in caplog.records]
    assert said[1:] == ["refused 999 of 100% (999 times since the last such entry)"]
