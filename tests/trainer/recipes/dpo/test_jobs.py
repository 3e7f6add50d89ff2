"""Whole DPO and ORPO jobs: what they leave, resuming, bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.trainer.recipes.dpo.jobs import job, preference, preferences
from tests.trainer.workdirs import events_of
from trainer.contract.events import ErrorEvent
from trainer.contract.result import ExitCode
from trainer.kit.stop import StopFlag
from trainer.run import run_training_job

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
SHORT = {"n_epochs": 2, "batch_size": 3, "checkpoint_steps": 2, "learning_rate_multiplier": 5}


@pytest.fixture(scope="module")
def finished(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dpo") / "job"
    job(folder, tiny_base, "dpo", preferences(12), hyperparameters=SHORT, held_out=preferences(20)[12:])
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    return folder


@pytest.mark.slow
def test_the_report_has_dpo_s_own_measures(finished: Path) -> None:
    report = json.loads((finished / "output" / "report.json").read_text())
    measures = {measure["name"]: measure for measure in report["comparison"]}
    assert measures["implicit_accuracy"]["base"]["value"] == 0.5
    assert measures["margin"]["tuned"]["value"] > 0
    assert measures["implicit_accuracy"]["tuned"]["low"] is not None
    assert report["hyperparameters"]["settings"]["beta"] == 0.1
    assert report["verdict"]["outcome"] in {"better", "no_difference_shown"}
    html = (finished / "output" / "report.html").read_text()
    assert "implicit-reward margin" in html
    assert html.count("<svg") >= 4


@pytest.mark.slow
def test_a_resumed_job_ends_with_the_same_bytes(finished: Path, tiny_base: Path, tmp_path: Path) -> None:
    folder = job(
        tmp_path / "job", tiny_base, "dpo", preferences(12), hyperparameters=SHORT, held_out=preferences(8), resume=True
    )
    middle = sorted((finished / "checkpoints").iterdir(), key=lambda path: int(path.name[5:]))[0]
    shutil.copytree(middle, folder / "checkpoint")
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    weights = "output/adapter/adapter_model.safetensors"
    assert (folder / weights).read_bytes() == (finished / weights).read_bytes()


@pytest.mark.slow
def test_a_job_starts_from_an_earlier_adapter(finished: Path, tiny_base: Path, tmp_path: Path) -> None:
    start = {"id": "ft:tiny:<org>::one", "job_id": "ftjob-one", "sha256": "0" * 64}
    folder = job(
        tmp_path / "job",
        tiny_base,
        "dpo",
        preferences(6),
        hyperparameters={"n_epochs": 1, "batch_size": 3, "lora": "auto"},
        start=start,
    )
    shutil.copytree(finished / "output" / "adapter", folder / "start")
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    report = json.loads((folder / "output" / "report.json").read_text())
    assert report["hyperparameters"]["lora"]["rank"] == 4
    # The reference is the model at the start, adapter and all: its implicit rewards are zero again.
    assert report["comparison"][0]["base"]["value"] == 0.5


def test_another_shape_than_the_start_adapter_s_is_refused(finished: Path, tiny_base: Path, tmp_path: Path) -> None:
    start = {"id": "ft:tiny:<org>::one", "job_id": "ftjob-one", "sha256": "0" * 64}
    folder = job(tmp_path / "job", tiny_base, "dpo", preferences(6), hyperparameters={"lora": {"rank": 8}}, start=start)
    shutil.copytree(finished / "output" / "adapter", folder / "start")
    assert run_training_job(folder, StopFlag()) is ExitCode.BAD_INPUT
    error = events_of(folder)[-1]
    assert isinstance(error, ErrorEvent)
    assert "rank 8 instead of 4" in error.message


def test_a_prompt_longer_than_the_context_is_refused_with_its_line(tiny_base: Path, tmp_path: Path) -> None:
    rows = [*preferences(3), preference("a" * 600, "yes", "no")]
    folder = job(tmp_path, tiny_base, "dpo", rows)
    assert run_training_job(folder, StopFlag()) is ExitCode.BAD_INPUT
    error = events_of(folder)[-1]
    assert isinstance(error, ErrorEvent)
    assert error.code == "invalid_training_file"
    assert "line 4" in error.message
    assert "512 tokens" in error.message


def test_equal_answers_are_refused_with_their_line(tiny_base: Path, tmp_path: Path) -> None:
    folder = job(tmp_path, tiny_base, "dpo", [*preferences(2), preference("?", "same", "same")])
    assert run_training_job(folder, StopFlag()) is ExitCode.BAD_INPUT
    error = events_of(folder)[-1]
    assert isinstance(error, ErrorEvent)
    assert "line 3" in error.message
    assert "are the same" in error.message


@pytest.mark.slow
def test_orpo_trains_without_a_reference(tiny_base: Path, tmp_path: Path) -> None:
    folder = job(tmp_path, tiny_base, "orpo", preferences(12), hyperparameters=SHORT, held_out=preferences(8))
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    report = json.loads((folder / "output" / "report.json").read_text())
    measures = {measure["name"]: measure for measure in report["comparison"]}
    assert measures["loss"]["tuned"]["value"] < measures["loss"]["base"]["value"]
    assert measures["log_odds_ratio"]["difference"]["value"] > 0
