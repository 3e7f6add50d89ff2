"""A machine is lost while a job trains; its backup, restored elsewhere, has every job, and they go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from burnish import Burnish
from tests.fixtures.processes import Server, clean_environment, jsonl, rows, running_server, wait_until
from tests.fixtures.service import write_catalog

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

QUICK: dict[str, Any] = {"n_epochs": 1, "batch_size": 4, "lora": {"rank": 4, "alpha": 8}}
LONG = QUICK | {"n_epochs": 50, "batch_size": 2, "checkpoint_steps": 20}


def test_a_restored_service_has_every_job_and_finishes_them(tmp_path: Path, tiny_base: Path) -> None:
    environment = {"BURNISH_CATALOG": str(write_catalog(tmp_path, tiny_base))}
    archive, adapter = tmp_path / "burnish.tar", tmp_path / "adapter.zip"
    with running_server(tmp_path / "lost", **environment) as server, server.client() as client:
        file = client.files.create(file=jsonl(rows(24)), filename="训练.jsonl").id
        done = client.jobs.wait(create(client, file, QUICK), timeout=300)
        client.jobs.download_adapter(done.id, adapter)
        running, queued = create(client, file, LONG), create(client, file, QUICK)
        wait_until(lambda: list(client.jobs.checkpoints(running)), what="a checkpoint")
        command(server, "backup", str(archive))
        for process in [*server.descendants(), psutil.Process(server.process.pid)]:
            process.kill()
        server.process.wait()

    subprocess.run(
        [sys.executable, "-m", "service", "restore", str(archive), "--data", str(tmp_path / "found")],
        env=clean_environment(),
        check=True,
    )
    with running_server(tmp_path / "found", **environment) as server, server.client() as client:
        assert {job.id for job in client.jobs.list()} == {done.id, running, queued}
        again = client.jobs.retrieve(done.id)
        assert (again.status, again.fine_tuned_model) == ("succeeded", done.fine_tuned_model)
        client.jobs.download_adapter(done.id, tmp_path / "again.zip")
        assert (tmp_path / "again.zip").read_bytes() == adapter.read_bytes()
        wait_until(lambda: client.jobs.retrieve(running).model_dump()["attempt"] == 2, what="the second attempt")
        shown = max(steps(client, running))
        wait_until(lambda: max(steps(client, running)) > shown, what="a step that the lost machine had not shown")
        seen = steps(client, running)
        assert sorted(seen) == list(range(1, max(seen) + 1)), "a step is missing, or was shown twice"
        client.jobs.cancel(running)
        assert client.jobs.wait(queued, timeout=300).status == "succeeded", server.log()


def create(client: Burnish, file: str, hyperparameters: dict[str, Any]) -> str:
    return client.jobs.create(model="tiny", training_file=file, hyperparameters=hyperparameters, seed=3).id


def command(server: Server, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "service", *arguments, "--data", str(server.data)], env=clean_environment(), check=True
    )


def steps(client: Burnish, job_id: str) -> list[int]:
    events = client.jobs.events(job_id, limit=1000)
    return [event.data["step"] for event in events if event.data and "train_loss" in event.data]
