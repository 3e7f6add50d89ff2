"""The process that tests fork programs from outlives whoever asks it and dies."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.fixtures.preloaded import start_preloaded


@pytest.mark.slow
def test_it_outlives_those_who_are_killed_while_they_ask(tmp_path: Path) -> None:
    preloaded = start_preloaded()
    address = str(Path(preloaded.python).with_name("socket"))
    call = {"folder": str(tmp_path), "environment": dict(os.environ), "module": "trainer", "arguments": []}
    for sent in (b"", json.dumps(call).encode()) * 3:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(address)
            if sent:
                socket.send_fds(connection, [sent], [0, 1, 2])
    ended = subprocess.run([*preloaded.command("trainer"), "没有"], cwd=tmp_path, capture_output=True, check=False)
    assert ended.returncode not in (0, 127)
    assert preloaded.process.poll() is None
