from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import logging
from anyio import run, to_thread
from service.kit.log import REQUEST_ID, set_up_logging
set_up_logging("api")
log = logging.getLogger("service.x")
async def serve():
    REQUEST_ID.set("req_1")
    await to_thread.run_sync(log.warning, "盘满了")
log.info("before")
run(serve)
log.info("after")
"""


def test_every_line_of_a_request_names_it() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, timeout=60)
    lines = [line.partition("Z ")[2] for line in done.stderr.decode().splitlines()]
    assert lines == [
        "api INFO service.x: before",
        "api WARNING service.x [req_1]: 盘满了",
        "api INFO service.x: after",
    ]
