from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service import migrations
from service.context import Context, open_context
from service.controller.main import steps_of
from service.jobs import repository
from service.kit.settings import Settings
from service.queue.memory import MemoryJobQueue
from service.tables.jobs import JobState
from service.tables.keys import ProjectRow
from tests.fixtures.processes import clean_environment, wait_until
from tests.service.controller.conftest import GOOD_ROW
from tests.service.webhooks.conftest import SECRET


def start(**environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "service", "controller"],
        env=clean_environment(**environment),
        stderr=subprocess.PIPE,
        text=True,
    )


def prepare(folder: Path) -> Context:
    settings = Settings(data=folder)
    migrations.upgrade_schema(settings)
    context = open_context(settings)
    with context.db.write() as session:
        session.add(ProjectRow(id="proj_test", name="test"))
    return context


def test_every_step_runs_on_an_empty_database(context: Context, queue: MemoryJobQueue) -> None:
    steps = steps_of(context, queue)
    assert len({step.name for step in steps}) == len(steps)
    for step in steps:
        assert not step.run()


@pytest.mark.integration
def test_it_moves_jobs_on_while_the_queue_is_away_and_ends_by_sigterm(tmp_path: Path) -> None:
    from service.tables.files import FileRow
    from service.tables.jobs import JobRow

    context = prepare(tmp_path)
    blob = context.storage.put("files/file-a", [GOOD_ROW.encode()])
    with context.db.write() as session:
        facts = {"filename": "训练.jsonl", "purpose": "fine-tune", "bytes": blob.bytes, "sha256": blob.sha256}
        session.add(FileRow(id="file-a", project_id="proj_test", blob_key=blob.key, **facts))
        base = "smollm2-135m-instruct"
        job = {"model": base, "base": base, "model_name": "ft:a", "method": {"type": "supervised"}, "seed": 1}
        session.add(JobRow(id="ftjob-a", project_id="proj_test", state="validating", training_file="file-a", **job))
    controller = start(BURNISH_DATA=str(tmp_path), BURNISH_REDIS_URL="redis://:secret-word@127.0.0.1:1/0")

    def queued() -> bool:
        with context.db.read() as session:
            found = repository.by_id(session, "ftjob-a")
            return found is not None and found.state == JobState.QUEUED

    try:
        wait_until(queued, what="the job to be queued")
        assert controller.stderr is not None
        for line in controller.stderr:
            if "127.0.0.1:1" in line:
                break
    finally:
        controller.send_signal(signal.SIGTERM)
        _, rest = controller.communicate(timeout=60)
    assert controller.returncode == 0
    assert "does not answer" in line
    assert "secret-word" not in line + rest
    assert "Traceback" not in rest
    context.db.close()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"BURNISH_WEBHOOK_URL": "example", "BURNISH_WEBHOOK_SECRET": SECRET}, "BURNISH_WEBHOOK_URL is not"),
        ({"BURNISH_WEBHOOK_URL": "http://h/", "BURNISH_WEBHOOK_SECRET": "密"}, "BURNISH_WEBHOOK_SECRET must"),
        ({"BURNISH_REDIS_URL": "nowhere"}, "BURNISH_REDIS_URL is not"),
        ({}, "burnish-server migrate"),
    ],
)
def test_wrong_settings_are_one_sentence(tmp_path: Path, environment: dict[str, str], sentence: str) -> None:
    controller = start(BURNISH_DATA=str(tmp_path), **environment)
    _, stderr = controller.communicate(timeout=60)
    assert controller.returncode == 1
    told = [line for line in stderr.splitlines() if line.startswith("burnish-server: ")]
    assert len(told) == 1
    assert sentence in told[0]
    assert "Traceback" not in stderr


def test_the_receivers_secret_is_not_in_the_settings_text(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data": tmp_path, "webhook_url": "http://h/", "webhook_secret": SECRET})
    assert SECRET not in repr(settings) + json.dumps(settings.model_dump(mode="json"))
