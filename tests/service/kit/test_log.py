from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from typing import Any

PROGRAM = """
import logging, sys, threading, warnings
from anyio import run, to_thread
from service.kit.log import REQUEST_ID, about, carried, in_own_context, set_subject, set_up_logging
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
    thread = threading.Thread(target=carried(lambda: log.info("beside")))
    thread.start()
    thread.join()
in_own_context(work)
with about("ftjob-2"):
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


def test_what_is_no_terminal_gets_json() -> None:
    assert entries("auto")
