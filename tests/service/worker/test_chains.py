"""Jobs that go on from other jobs, on the worker: what is fetched, checked and handed to the trainer."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from service.models import repository as models
from service.tables.jobs import JobRow, JobState
from service.tables.keys import ProjectRow
from service.tables.models import FineTunedModelRow
from service.worker import run as worker_run
from tests.service.worker.world import World
from trainer.contract.job import JobSpec

SHAPE = {"layers": 1, "heads": 2, "width": 32, "context": 32}
REWARD = {"type": "reward", "reward": {"hyperparameters": {}}}


def ppo(reward: str) -> dict[str, Any]:
    return {"type": "ppo", "ppo": {"hyperparameters": {"reward": {"model": reward}}}}


def new_model() -> dict[str, Any]:
    return {"type": "pretraining", "pretraining": {"hyperparameters": {"architecture": SHAPE, "tokenizer": "byte"}}}


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch) -> list[JobSpec]:
    """Every job.json that a trainer was given."""
    seen: list[JobSpec] = []
    real = worker_run.supervise_trainer

    def supervise(*args: Any, folder: Path, **more: Any) -> None:
        seen.append(JobSpec.model_validate_json((folder / "job.json").read_bytes()))
        assert not list(folder.glob("start/*.pt"))
        real(*args, folder=folder, **more)

    monkeypatch.setattr(worker_run, "supervise_trainer", supervise)
    return seen


def model_of(world: World, job_id: str) -> FineTunedModelRow:
    with world.db.read() as session:
        found = models.of_job(session, job_id)
        assert found is not None
        return found


def succeeded(world: World, job_id: str) -> str:
    world.run(job_id)
    job = world.row(job_id)
    assert job.state == JobState.SUCCEEDED, job.error
    return job_id


@pytest.mark.slow
def test_the_parents_adapter_is_handed_to_the_trainer(world: World, specs: list[JobSpec]) -> None:
    parent = succeeded(world, world.job())
    entry = {"model": "ft:x", "job_id": parent, "method": "supervised", "training_sha256": None}
    succeeded(world, world.job(start_job=parent, lineage=[entry]))
    spec = specs[-1]
    assert spec.start is not None
    assert (spec.start.id, spec.start.job_id) == (world.row(parent).fine_tuned_model, parent)
    manifest = json.loads(world.read(f"{model_of(world, parent).blob_prefix}/manifest.json"))
    weights = next(entry for entry in manifest["files"] if entry["path"] == "adapter_model.safetensors")
    assert spec.start.sha256 == weights["sha256"]
    assert (spec.base.id, specs[0].start, spec.lineage[0].job_id) == ("tiny", None, parent)


@pytest.mark.slow
def test_a_checkpoint_of_an_unfinished_job_is_a_start(world: World, specs: list[JobSpec]) -> None:
    parent = world.job()
    world.meanwhile(lambda: world.has_step(parent, 2), world.stop.set)
    world.run(parent, "wait")
    world.stop.clear()
    assert world.row(parent).state == JobState.QUEUED
    succeeded(world, world.job(start_job=parent, start_step=3))
    assert specs[-1].start is not None
    assert specs[-1].start.id == f"ft:tiny:burnish:demo:{parent[-8:]}:ckpt-step-3"


@pytest.mark.slow
def test_a_reward_model_is_handed_to_ppo_without_a_second_base(world: World, specs: list[JobSpec]) -> None:
    reward = succeeded(world, world.job(method=REWARD))
    assert model_of(world, reward).kind == "reward"
    succeeded(world, world.job(method=ppo(reward), reward_job=reward))
    spec = specs[-1]
    assert spec.reward is not None
    assert (spec.reward.job_id, spec.reward.base) == (reward, spec.base)
    assert spec.start is None


@pytest.mark.slow
def test_a_whole_model_is_published_and_serves_as_a_base(world: World, specs: list[JobSpec]) -> None:
    text = world.file("从前有座山。\n", "山.txt")
    columns = {"model": "from-scratch", "method": new_model(), "training_file": text, "validation_file": None}
    parent = succeeded(world, world.job(**columns))
    assert specs[-1].training.path == "data/train.txt"
    name = world.row(parent).fine_tuned_model
    assert name == f"ft:from-scratch:burnish:demo:{parent[-8:]}"
    assert (model_of(world, parent).kind, set(world.artifacts(parent))) == (
        "model",
        {"model", "report.json", "report.html"},
    )
    child = succeeded(world, world.job(model=parent, base=name, start_job=parent))
    assert (specs[-1].base.id, specs[-1].start) == (name, None)
    assert specs[-1].base.fingerprint == model_of(world, parent).manifest_sha256
    assert world.row(child).fine_tuned_model == f"ft:from-scratch:burnish:demo:{child[-8:]}"
    grandchild = world.job(model=child, base=name, start_job=child)
    succeeded(world, grandchild)
    assert specs[-1].start is not None
    told = [message for message in world.messages(grandchild) if message.startswith("Preparing")]
    assert told == [], "the base was on this machine already"
    reward = succeeded(world, world.job(method=REWARD))
    succeeded(world, world.job(base=name, method=ppo(reward), start_job=child, reward_job=reward))
    assert specs[-1].reward is not None
    assert specs[-1].reward.base.id == "tiny"


@pytest.mark.slow
def test_a_shared_parent_is_named_by_what_was_shared(world: World, specs: list[JobSpec]) -> None:
    """What the trainer is told goes into report and model card, which are for the project of the job."""
    parent, reward = succeeded(world, world.job()), succeeded(world, world.job(method=REWARD))
    with world.db.write() as session:
        other = ProjectRow(id="proj_other", name="别的")
        session.add(other)
        session.flush()
        for job_id in (parent, reward):
            session.execute(update(JobRow).where(JobRow.id == job_id).values(project_id=other.id))
    names = [str(world.row(job_id).fine_tuned_model) for job_id in (parent, reward)]
    given = {"model": names[0], "job_id": None, "method": None, "training_sha256": None}
    columns = {
        "model": names[0],
        "base": "tiny",
        "start_job": parent,
        "reward_job": reward,
        "foreign_parents": f"{parent} {reward}",
    }
    child = succeeded(world, world.job(**columns, method=ppo(names[1]), lineage=[given]))
    spec = specs[-1]
    assert spec.start is not None
    assert spec.reward is not None
    assert [(spec.start.id, spec.start.job_id), (spec.reward.id, spec.reward.job_id)] == [
        (names[0], None),
        (names[1], None),
    ]
    told = spec.model_dump_json() + "".join(world.messages(child))
    assert [secret for secret in (parent, reward) if secret in told] == []
    with world.db.write() as session:
        session.execute(delete(JobRow).where(JobRow.id.in_((parent, reward))))
    for kept, name in (({"start_job": parent}, names[0]), ({"reward_job": reward, "method": ppo(names[1])}, names[1])):
        late = world.job(**(columns | {"start_job": None, "reward_job": None} | kept))
        world.run(late)
        error = world.row(late).error
        assert error is not None
        assert error["message"].startswith(f"The model {name} was deleted")


@pytest.mark.slow
def test_a_model_that_was_deleted_ends_the_job(world: World) -> None:
    parent = succeeded(world, world.job())
    with world.db.write() as session:
        models.delete_model_row(session, model_of(world, parent))
    for columns, param in (
        ({"start_job": parent}, "model"),
        ({"base": world.row(parent).fine_tuned_model}, "model"),
        ({"reward_job": parent, "method": ppo(parent)}, "method.ppo.hyperparameters.reward.model"),
    ):
        child = world.job(**columns)
        world.run(child)
        job = world.row(child)
        assert job.state == JobState.FAILED
        assert job.error is not None
        assert (job.error["code"], job.error["param"]) == ("model_deleted", param)


@pytest.mark.slow
def test_a_damaged_model_is_not_trained_on(world: World) -> None:
    parent = succeeded(world, world.job())
    prefix = model_of(world, parent).blob_prefix
    world.storage.put(f"{prefix}/adapter_model.safetensors", [b"other bytes"])
    child = world.job(start_job=parent)
    for _ in range(world.settings.max_failures):
        world.run(child)
    job = world.row(child)
    assert job.error is not None
    assert job.error["code"] == "model_damaged"
    assert "adapter_model.safetensors does not have the SHA-256" in job.error["message"]


@pytest.mark.slow
def test_two_workers_fetch_a_base_once(world: World) -> None:
    parent = succeeded(world, world.job(model="from-scratch", method=new_model()))
    name = world.row(parent).fine_tuned_model
    children = [world.job(base=name, start_job=parent) for _ in range(2)]
    threads = [threading.Thread(target=world.run, args=(child,)) for child in children]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [world.row(child).state for child in children] == [JobState.SUCCEEDED] * 2
    assert sum(message.startswith("Preparing") for child in children for message in world.messages(child)) == 1
