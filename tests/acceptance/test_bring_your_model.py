"""A whole service whose configured base is broken starts, says so, and takes a base that is added while it runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.fixtures.preloaded import start_preloaded
from tests.fixtures.processes import clean_environment, running_server, wait_until
from tests.fixtures.service import GOOD_JSONL, upload, write_catalog

pytestmark = pytest.mark.integration


def test_a_broken_base_is_said_and_another_is_added_to_the_running_service(tmp_path: Path, tiny_base: Path) -> None:
    broken = shutil.copytree(tiny_base, tmp_path / "坏")
    (broken / "model.safetensors").write_bytes(b"cut")
    catalog = str(write_catalog(tmp_path, broken))
    sentence = f"The base model in {broken} cannot be used: model.safetensors (3 bytes) is cut off"
    with running_server(tmp_path / "data", BURNISH_CATALOG=catalog):
        assert f"Warning: jobs on tiny are refused. {sentence}" in (tmp_path / "data" / "up.log").read_text()
        settings = json.loads((tmp_path / "data" / "client.json").read_text())
        headers = {"Authorization": f"Bearer {settings['api_key']}"}
        with httpx.Client(base_url=settings["base_url"], headers=headers, timeout=60) as client:
            assert sentence in client.get("/models/tiny").json()["problem"]
            body = {"model": "tiny", "training_file": upload(client, GOOD_JSONL).json()["id"]}
            refused = client.post("/fine_tuning/jobs", json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "base_model_unavailable")
            assert sentence in refused.json()["error"]["message"]

            assert client.post("/fine_tuning/jobs", json={**body, "model": "mine"}).status_code == 404
            command = [start_preloaded().python, "-m", "service", "models", "add", str(tiny_base), "--id", "mine"]
            variables = clean_environment(BURNISH_DATA=str(tmp_path / "data"), BURNISH_CATALOG=catalog)
            subprocess.run(command, env=variables | {"PYTHONPATH": os.getcwd()}, check=True, timeout=120)
            wait_until(lambda: client.get("/models/mine").status_code == 200, what="the new base", seconds=10)
            assert client.get("/models/mine").json()["card"]["family"] == "llama"
            job = client.post("/fine_tuning/jobs", json={**body, "model": "mine"}).json()
            assert job["status"] == "validating_files", job
