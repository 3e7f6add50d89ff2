"""Metrics on their way to Weights & Biases: its real package, a real server on loopback, a scripted trainer."""

from __future__ import annotations

import re
import signal
import socket
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.jobs import lifecycle
from service.tables.jobs import JobState
from service.worker import reporting
from service.worker.reporting import report_metrics as reports
from tests.fixtures.processes import free_port
from tests.fixtures.wandb_server import ENTITY, KEY, WandbServer, run_wandb_server
from tests.service.worker.world import World, eventually

pytestmark = pytest.mark.integration
STEPS = [1, 2, 3, 4]
LATE = "Metrics are not sent to Weights & Biases: the last had not arrived 2 seconds after the attempt's end."


@pytest.fixture
def server() -> Generator[WandbServer]:
    with run_wandb_server() as running:
        yield running


@pytest.fixture
def world(tmp_path: Path, server: WandbServer) -> Generator[World]:
    made = World(tmp_path, wandb_api_key=KEY, wandb_base_url=server.url)
    yield made
    made.close()


def asked(**more: Any) -> list[dict[str, Any]]:
    return [{"type": "wandb", "wandb": {"project": "客服 desk", "name": None, "entity": None, "tags": [], **more}}]


def run_of(server: WandbServer, job_id: str, place: str = f"{ENTITY}/客服 desk") -> Any:
    return server.runs[f"{place}/{job_id}"]


def warnings(world: World, job_id: str) -> Sequence[str]:
    return [e.message for e in world.events(job_id) if e.level == "warn" and (e.once_key or "").startswith("integ")]


BEFORE: set[psutil.Process] = set()
"""The servers of other modules, which live as long as the tests do."""


@pytest.fixture(scope="module", autouse=True)
def _before() -> None:
    BEFORE.update(psutil.Process().children(recursive=True))


def children() -> list[psutil.Process]:
    made = set(psutil.Process().children(recursive=True)) - BEFORE
    return [child for child in made if child.status() != psutil.STATUS_ZOMBIE]


@dataclass
class Told:
    """A job that has ended, and all that the server got of it."""

    world: World
    server: WandbServer
    job_id: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Generator[Told]:
    with run_wandb_server() as server:
        world = World(tmp_path_factory.mktemp("told"), wandb_api_key=KEY, wandb_base_url=server.url)
        places = asked(name="第一次", tags=["团队", "desk"]) + asked(entity="team-b", project="second")
        job_id = world.job(integrations=places)
        world.run(job_id)
        yield Told(world, server, job_id)
        world.close()


def test_a_run_has_what_the_jobs_events_have(told: Told) -> None:
    job_id, job = told.job_id, told.world.row(told.job_id)
    assert job.state == JobState.SUCCEEDED
    run = run_of(told.server, job_id)
    assert run.steps() == STEPS
    assert [row["train_loss"] for row in run.history] == [1.234] * 4
    last = run.history[-1]
    assert (last["tokens_seen"], last["train_mean_token_accuracy"], last["learning_rate"]) == (40, 0.5, 1e-4)
    assert (last["base_valid_loss"], last["full_valid_loss"], last["full_valid_mean_token_accuracy"]) == (2, 2, 0.25)
    assert run.bucket["displayName"] == "第一次"
    assert run.bucket["tags"] == ["burnish/finetune", "burnish/tiny", f"burnish/{job_id}", "团队", "desk"]
    config = run.config
    assert (config["job_id"], config["base_model"], config["method"], config["seed"]) == (
        job_id,
        "tiny",
        "supervised",
        7,
    )
    assert (config["training_file"], config["hyperparameters"]) == (job.training_file, {"n_epochs": 3})
    assert (run.summary["status"], run.summary["trained_tokens"]) == ("succeeded", 40)
    assert run.summary["fine_tuned_model"] == job.fine_tuned_model
    assert run.endings == [{"exitcode": 0, "preempting": None}]


def test_each_project_has_a_run_and_the_job_links_to_it(told: Told) -> None:
    other = run_of(told.server, told.job_id, "team-b/second")
    assert (other.steps(), other.bucket["displayName"]) == (STEPS, told.job_id)
    links = [event for event in told.world.events(told.job_id) if "Weights & Biases run: " in event.message]
    assert [link.message for link in links] == [f"Weights & Biases run: {(link.data or {})['url']}" for link in links]
    assert {link.message.split("/")[-4] for link in links} == {ENTITY, "team-b"}
    assert warnings(told.world, told.job_id) == []


def test_nothing_of_the_machine_or_the_code_is_sent_and_nothing_is_left(told: Told) -> None:
    assert {name for run in told.server.runs.values() for name in run.files} == {"config.yaml", "wandb-summary.json"}
    assert [line for run in told.server.runs.values() for line in run.output] == []
    everything = "\n".join(told.server.received)
    for secret in (socket.gethostname(), sys.executable, str(told.world.settings.data), str(Path.cwd()), KEY):
        # As a word of its own: a machine's name may be as short as two letters, which ids hold by chance.
        assert not re.search(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", everything)
    assert list(told.world.settings.work.iterdir()) == []
    assert children() == []


def test_a_requeued_job_resumes_its_run(world: World, server: WandbServer) -> None:
    job_id = world.job(integrations=asked())
    world.run(job_id, "killed")
    run = run_of(server, job_id)
    assert world.row(job_id).state == JobState.QUEUED
    assert set(run.steps()) <= {1, 2}
    world.run(job_id)
    assert run.steps() == STEPS
    assert len(server.runs) == 1
    assert [ending["exitcode"] for ending in run.endings] == [1, 0]
    assert len([message for message in world.messages(job_id) if "Weights & Biases run" in message]) == 1


@pytest.mark.faults
def test_the_next_attempt_completes_the_run_of_a_killed_program(world: World, server: WandbServer) -> None:
    job_id = world.job(integrations=asked())

    def kill_all() -> None:
        for child in children():
            child.send_signal(signal.SIGKILL)

    thread = world.meanwhile(lambda: bool(server.runs) and world.has_step(job_id, 2), kill_all)
    world.run(job_id, "wait")
    thread.join()
    assert world.row(job_id).state == JobState.QUEUED
    world.run(job_id)
    assert run_of(server, job_id).steps() == STEPS
    assert run_of(server, job_id).endings[-1]["exitcode"] == 0


def test_a_paused_job_is_preempted_and_resumes(world: World, server: WandbServer) -> None:
    job_id = world.job(integrations=asked())

    def pause() -> None:
        with world.db.write() as session:
            lifecycle.pause_job(session, job_id)

    thread = world.meanwhile(lambda: bool(server.runs) and world.has_step(job_id, 2), pause)
    world.run(job_id, "wait")
    thread.join()
    assert world.row(job_id).state == JobState.PAUSED
    assert any('"preempting":true' in text for text in server.received)
    with world.db.write() as session:
        lifecycle.resume_job(session, job_id)
    world.run(job_id)
    assert run_of(server, job_id).steps() == [1, 2, 4]  # the script keeps a checkpoint at step 3 without an event of it


def test_a_run_fails_as_its_job(world: World, server: WandbServer) -> None:
    job_id = world.job(integrations=asked())
    world.run(job_id, "bad_input")
    run = run_of(server, job_id)
    assert (run.summary["status"], run.summary["error"]) == ("failed", "第 2 行不是对话")
    assert (run.steps(), run.endings) == ([1, 2], [{"exitcode": 1, "preempting": None}])


def test_a_run_is_cancelled_as_its_job(world: World, server: WandbServer) -> None:
    job_id = world.job(integrations=asked())

    def cancel() -> None:
        with world.db.write() as session:
            lifecycle.cancel_job(session, job_id)

    thread = world.meanwhile(lambda: bool(server.runs) and world.has_step(job_id, 2), cancel)
    world.run(job_id, "wait")
    thread.join()
    run = run_of(server, job_id)
    assert (run.summary["status"], run.steps()) == ("cancelled", [1, 2])
    assert run.endings == [{"exitcode": 255, "preempting": None}]


def test_without_a_key_the_job_says_so_and_succeeds(tmp_path: Path, server: WandbServer) -> None:
    world = World(tmp_path / "keyless", wandb_base_url=server.url)
    job_id = world.job(integrations=asked())
    world.run(job_id)
    assert world.row(job_id).state == JobState.SUCCEEDED
    assert warnings(world, job_id) == [
        "Metrics are not sent to Weights & Biases: this worker has no key for it; its operator can set "
        "BURNISH_WANDB_API_KEY."
    ]
    assert server.received == []
    world.close()


def test_without_the_package_the_job_says_so_and_succeeds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    job_id = world.job(integrations=asked())
    world.run(job_id)
    assert world.row(job_id).state == JobState.SUCCEEDED
    (warning,) = warnings(world, job_id)
    assert "pip install 'burnish-server[wandb]'" in warning


@pytest.mark.faults
def test_a_server_that_hangs_does_not_hold_a_job(
    world: World, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "END_SECONDS", 2.0)
    server.released.clear()
    hung = world.job(integrations=asked())
    world.run(hung)
    assert world.row(hung).state == JobState.SUCCEEDED
    assert warnings(world, hung) == [LATE]
    assert children() == []
    assert list(world.settings.work.iterdir()) == []


@pytest.mark.faults
def test_a_server_that_is_away_does_not_hold_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "END_SECONDS", 2.0)
    world = World(tmp_path, wandb_api_key=KEY, wandb_base_url=f"http://127.0.0.1:{free_port()}")
    job_id = world.job(integrations=asked())
    world.run(job_id)
    assert world.row(job_id).state == JobState.SUCCEEDED
    (warning,) = warnings(world, job_id)
    assert warning.startswith("Metrics are not sent to Weights & Biases: ")
    assert children() == []
    world.close()


@pytest.mark.faults
def test_a_server_that_hangs_later_delays_no_heartbeat(
    world: World, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "END_SECONDS", 2.0)
    job_id = world.job(integrations=asked())
    renewals: set[float | None] = set()

    def hang() -> None:
        server.released.clear()
        eventually(lambda: len(renewals.add(world.row(job_id).lease_expires_at) or renewals) > 5)
        with world.db.write() as session:
            lifecycle.pause_job(session, job_id)

    thread = world.meanwhile(lambda: bool(server.runs) and world.has_step(job_id, 2), hang)
    world.run(job_id, "wait")
    thread.join()
    assert world.row(job_id).state == JobState.PAUSED
    assert warnings(world, job_id) == [LATE]


def test_a_refused_key_is_reported_without_its_text(world: World, server: WandbServer) -> None:
    server.refuses = True
    job_id = world.job(integrations=asked())
    world.run(job_id)
    assert world.row(job_id).state == JobState.SUCCEEDED
    (warning,) = warnings(world, job_id)
    assert KEY not in warning
    assert "401" in warning or "key" in warning.lower()


def test_a_job_without_integrations_starts_nothing(world: World, server: WandbServer) -> None:
    job_id = world.job()
    with reports(world.context, world.row(job_id)):
        assert children() == []
    assert server.received == []
