"""Killed by SIGKILL at any moment and resumed by the worker, a job ends with the bytes of the uninterrupted one."""

from __future__ import annotations

import dataclasses
import functools
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.tables.jobs import JobState
from service.worker.run import WorkerRuntime, run_job
from tests.fixtures import scale
from tests.fixtures.preloaded import Command, start_preloaded
from tests.service.worker.world import World
from tests.trainer.killing.moments import CLOCK, FORWARD, STRUCK_NAME, Moment
from tests.trainer.recipes.dpo.jobs import preferences
from tests.trainer.recipes.kto.jobs import answers
from tests.trainer.recipes.ppo.test_job import prompt
from tests.trainer.recipes.reward.jobs import rankings
from tests.trainer.samples import GRADER, ITEMS
from tests.trainer.workdirs import jsonl, training_rows
from trainer.contract.methods import METHODS
from trainer.contract.result import MANIFEST_NAME, Manifest

pytestmark = pytest.mark.integration

KILLS = int(os.environ.get("BURNISH_KILLS", "1"))
# Rows of many lengths, dropout, an odd number of updates an epoch, evaluations that compete: whatever can go wrong.
SCHEDULE: dict[str, Any] = {
    "n_epochs": 2,
    "batch_size": 2,
    "dtype": "float32",
    "eval_steps": 2,
    "checkpoint_steps": 2,
    "result": "best",
}
LOOP: dict[str, Any] = {**SCHEDULE, "gradient_accumulation_steps": 2, "lora": {"rank": 2, "dropout": 0.1}}
FULL = {name: value for name, value in LOOP.items() if name != "lora"}
SAMPLED: dict[str, Any] = {
    **SCHEDULE,
    "lora": {"rank": 2},
    "reward": {"function": "length", "parameters": {"target": 3}},
    "iterations": 6,
    "rollout_prompts": 2,
    "max_new_tokens": 4,
}
TEXT = "".join(f"The {number}th line says 天气很好.\n" for number in range(9)).encode()
PROMPTS = [prompt("天气怎么样?"), *(prompt(f"Say {number}" + "!" * number) for number in range(5))]

# In this order each is reached: nothing is kept before step 2, then step 2, then step 4, then the last.
LOOP_MOMENTS = {
    "inside the first step": Moment(
        at=FORWARD, within="trainer.engine.loop.training_loop:JobLoop.training_step", nth=2
    ),
    "between the optimizer and the step's event": Moment(at="trainer.engine.loop.training_loop:JobLoop.log", call=2),
    "inside an evaluation": Moment(at=FORWARD, within="trainer.engine.loop.training_loop:JobLoop.evaluate"),
    "while the library writes a checkpoint": Moment(
        at="trainer.engine.loop.training_loop:JobLoop._save_optimizer_and_scheduler"
    ),
    "before a checkpoint's manifest": Moment(at="trainer.engine.loop.checkpoints:write_manifest"),
    "before a checkpoint is announced": Moment(at="trainer.engine.loop.checkpoints:_remove_old_checkpoints"),
    "in the second epoch": Moment(at=FORWARD, within="trainer.engine.loop.training_loop:JobLoop.training_step", nth=7),
    "inside the last evaluation": Moment(
        at=FORWARD, within="trainer.engine.loop.training_loop:JobLoop.evaluate", nth=2
    ),
}
SAMPLED_MOMENTS = {
    "inside the first rollout": Moment(
        at=FORWARD, within="trainer.engine.onpolicy.updates:OnPolicy.collect_answers", call=4
    ),
    "inside an update": Moment(
        at=FORWARD, within="trainer.engine.onpolicy.updates:OnPolicy._take_optimizer_step", nth=2
    ),
    "inside an evaluation": Moment(
        at=FORWARD, within="trainer.engine.onpolicy.loop:OnPolicyLoop._evaluate_if_due", nth=3, call=3
    ),
    "while a checkpoint is written": Moment(at="trainer.engine.loop.best:save_file"),
    "before a checkpoint's manifest": Moment(at="trainer.engine.loop.checkpoints:write_manifest"),
    "before a checkpoint is announced": Moment(at="trainer.engine.loop.checkpoints:_remove_old_checkpoints"),
    "inside a later rollout": Moment(
        at=FORWARD, within="trainer.engine.onpolicy.updates:OnPolicy.collect_answers", nth=4, call=3
    ),
    "in the second epoch": Moment(at=FORWARD, within="trainer.engine.onpolicy.updates:OnPolicy.improve_policy", nth=2),
    "inside the last evaluation": Moment(
        at=FORWARD, within="trainer.engine.onpolicy.loop:OnPolicyLoop._evaluate_if_due", nth=5
    ),
}
# One method of each loop is killed at all of these; the others, which share the loops, at one of each kind.
CHOSEN = (
    "inside the first rollout",
    "inside an update",
    "before a checkpoint's manifest",
    "in the second epoch",
    *(("inside the first step", "inside an evaluation", "inside a later rollout") if scale.FULL else ()),
)
ADAPTER_EXPORT = Moment(at="trainer.engine.adapter_export:write_manifest")


@dataclasses.dataclass(frozen=True)
class Case:
    """A job, and the moments of its chain."""

    method: str
    rows: bytes
    hyperparameters: dict[str, Any]
    moments: dict[str, Moment]
    export: Moment = ADAPTER_EXPORT
    result: str = "adapter/adapter_model.safetensors"
    filename: str = "训练.jsonl"
    beside: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    """What the method's block has beside its hyperparameters."""


LOOP_CHOSEN, SAMPLED_CHOSEN = (
    {name: moment for name, moment in moments.items() if name in CHOSEN} for moments in (LOOP_MOMENTS, SAMPLED_MOMENTS)
)
PLAIN = {"max_length": 32}
CASES = {
    "pretraining of an adapter": Case(
        "pretraining", TEXT, {**LOOP, **PLAIN, "weights": "lora"}, LOOP_CHOSEN, filename="书.txt"
    ),
    "pretraining of all weights": Case(
        "pretraining",
        TEXT,
        {**FULL, **PLAIN, "weights": "full"},
        LOOP_CHOSEN,
        Moment(at="trainer.recipes.pretraining.full:write_manifest"),
        "model/model.safetensors",
        filename="书.txt",
    ),
    "supervised": Case("supervised", jsonl(training_rows(10)), LOOP, LOOP_MOMENTS),
    "reward": Case("reward", jsonl(rankings(10)), LOOP, LOOP_CHOSEN),
    "dpo": Case("dpo", jsonl(preferences(10)), LOOP, LOOP_CHOSEN),
    "orpo": Case("orpo", jsonl(preferences(10)), LOOP, LOOP_CHOSEN),
    "kto": Case("kto", jsonl(answers(6)), LOOP, LOOP_CHOSEN),
    "ppo": Case("ppo", jsonl(PROMPTS), SAMPLED, SAMPLED_MOMENTS),
    "grpo": Case("grpo", jsonl(PROMPTS), {**SAMPLED, "group_size": 2}, SAMPLED_CHOSEN),
    "reinforcement": Case(
        "reinforcement",
        jsonl(ITEMS),
        {**SCHEDULE, "lora": {"rank": 2}, "iterations": 6, "max_new_tokens": 4, "group_size": 2},
        SAMPLED_CHOSEN,
        beside={"grader": GRADER},
    ),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("exact")
    made = World(folder, base=tiny_base, lease_seconds=120, trainer_threads=1, max_failures=1000, retry_seconds=0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def preloaded() -> Command:
    return start_preloaded().command("tests.trainer.killing.moments")


class Run:
    """One job, attempt by attempt."""

    def __init__(self, world: World, command: Command, case: Case) -> None:
        self.world, self.command, self.case = world, command, case
        hyperparameters = case.hyperparameters
        file = world.file(case.rows, case.filename)
        method = {"type": case.method, case.method: {**case.beside, "hyperparameters": hyperparameters}}
        self.id = world.job(method=method, training_file=file, validation_file=file)

    def attempt(self, moment: Moment | None = None, *, sure: bool = True) -> bool:
        """Run one attempt, killed at the moment where it comes to it; return whether it did.

        A kill by the clock is not `sure` to be before the end.
        """
        struck = self.world.settings.work / STRUCK_NAME
        struck.unlink(missing_ok=True)
        text = "" if moment is None else moment.to_text()
        runtime = WorkerRuntime(
            context=self.world.context, owner="w", stop=self.world.stop, trainer_command=(*self.command, text)
        )
        self.world.put_first(self.id)
        run_job(runtime, self.id)
        killed = struck.exists()
        state = self.world.row(self.id).state
        expected = JobState.QUEUED if killed else JobState.SUCCEEDED
        assert state == expected or not sure, self.world.messages(self.id)[-3:]
        return killed

    def kill(self, name: str, moment: Moment) -> None:
        assert self.attempt(moment), f"the trainer never came to the moment {name!r}"

    def digest(self) -> str:
        """Return the SHA-256 of the published weights."""
        prefix = f"jobs/{self.id}/attempt-{self.world.row(self.id).lease_token}/output"
        manifest = Manifest.model_validate_json(self.world.read(f"{prefix}/{MANIFEST_NAME}"))
        return next(entry.sha256 for entry in manifest.files if entry.path == f"output/{self.case.result}")

    def measured(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the job's steps and evaluations as its owner sees them, without what a clock has a part in."""
        clock = {"tokens_per_second", "seconds_left"}
        return [
            (event.message, {name: value for name, value in (event.data or {}).items() if name not in clock})
            for event in self.world.events(self.id)
            if event.type == "metrics"
        ]

    def checkpoints(self) -> Sequence[int]:
        keys = (event.once_key or "" for event in self.world.events(self.id))
        return [int(key.partition(":")[2]) for key in keys if key.startswith("checkpoint:")]


def test_every_method_is_killed() -> None:
    assert {case.method for case in CASES.values()} == {method.model_fields["type"].default for method in METHODS}


@dataclasses.dataclass(frozen=True)
class Whole:
    """What the uninterrupted run of a case left, and how long it took."""

    run: Run
    digest: str
    seconds: float


@pytest.fixture(scope="module")
def wholes(world: World, preloaded: Command) -> Callable[[str], Whole]:
    """Run each case once without interruption."""

    @functools.cache
    def whole(name: str) -> Whole:
        run = Run(world, preloaded, CASES[name])
        began = time.monotonic()
        assert not run.attempt()
        return Whole(run, run.digest(), time.monotonic() - began)

    return whole


def assert_same(killed: Run, whole: Whole) -> None:
    assert killed.digest() == whole.digest
    assert killed.measured() == whole.run.measured()
    steps = [data["step"] for _, data in killed.measured() if "train_loss" in data]
    assert steps == list(range(1, 7))
    assert killed.checkpoints() == whole.run.checkpoints() == [2, 4, 6]
    tokens = [run.world.row(run.id).trained_tokens for run in (killed, whole.run)]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("name", CASES)
def test_a_job_that_is_killed_again_and_again_is_the_job_that_ran_through(
    world: World, preloaded: Command, wholes: Callable[[str], Whole], name: str
) -> None:
    case = CASES[name]
    killed = Run(world, preloaded, case)
    for moment in (*case.moments.items(), ("inside the export", case.export)):
        killed.kill(*moment)
    assert not killed.attempt()
    assert_same(killed, wholes(name))


@pytest.mark.faults
@pytest.mark.parametrize("name", CASES if KILLS > 1 else ["supervised", "grpo"])
def test_a_job_that_is_killed_at_random_is_the_job_that_ran_through(
    world: World, preloaded: Command, wholes: Callable[[str], Whole], name: str
) -> None:
    """By default one kill, of a method of each loop; more, and of every method, by BURNISH_KILLS=50."""
    whole = wholes(name)
    killed = Run(world, preloaded, CASES[name])
    for _ in range(KILLS):
        killed.attempt(Moment(at=CLOCK, seconds=random.uniform(0, whole.seconds)), sure=False)
        if world.row(killed.id).state == JobState.SUCCEEDED:
            assert_same(killed, whole)
            killed = Run(world, preloaded, CASES[name])
    if world.row(killed.id).state == JobState.QUEUED:
        assert not killed.attempt()
    assert_same(killed, whole)
