"""Whole KTO jobs: what they leave, resuming, bad input."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from tests.trainer.recipes.dpo.jobs import job
from tests.trainer.recipes.kto.jobs import answers, labelled
from tests.trainer.workdirs import events_of
from trainer.contract.events import ErrorEvent, StepEvent, WarningEvent
from trainer.contract.result import ExitCode
from trainer.kit.stop import StopFlag
from trainer.run import run_training_job

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
SHORT = {"n_epochs": 4, "batch_size": 4, "gradient_accumulation_steps": 2, "checkpoint_steps": 2,
         "learning_rate_multiplier": 20}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kto") / "job"
    job(folder, tiny_base, "kto", answers(12), hyperparameters=SHORT, held_out=answers(8))
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    return folder


@pytest.mark.slow
def test_the_report_has_kto_s_own_measures(finished: Path) -> None:
    report = json.loads((finished / "output" / "report.json").read_text())
    measures = {measure["name"]: measure for measure in report["comparison"]}
    assert report["comparison"][0]["name"] == "implicit_accuracy"
    assert measures["implicit_accuracy"]["base"]["value"] == 0.5
    assert measures["margin"]["difference"]["value"] > 0
    assert measures["loss"]["difference"]["value"] < 0
    assert measures["margin"]["tuned"]["low"] is not None
    assert {"desirable_drift", "undesirable_drift"} < measures.keys()
    assert report["hyperparameters"]["settings"]["beta"] == 0.1
    html = (finished / "output" / "report.html").read_text()
    assert "baseline z0" in html
    assert html.count("<svg") >= 4
    steps = [event for event in events_of(finished) if isinstance(event, StepEvent)]
    assert all(step.metrics["baseline"] >= 0 and math.isfinite(step.train_loss) for step in steps)


@pytest.mark.slow
def test_a_resumed_job_ends_with_the_same_bytes(finished: Path, tiny_base: Path, tmp_path: Path) -> None:
    folder = job(
        tmp_path / "job", tiny_base, "kto", answers(12), hyperparameters=SHORT, held_out=answers(8), resume=True
    )
    middle = sorted((finished / "checkpoints").iterdir(), key=lambda path: int(path.name[5:]))[0]
    assert (middle / "reference.safetensors").is_file()
    shutil.copytree(middle, folder / "checkpoint")
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    weights = "output/adapter/adapter_model.safetensors"
    assert (folder / weights).read_bytes() == (finished / weights).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("label", [True, False])
def test_labels_that_are_all_equal_are_said(tiny_base: Path, tmp_path: Path, label: bool) -> None:
    rows = [labelled(f"{number}?", f"答{number}", label) for number in range(4)]
    folder = job(tmp_path, tiny_base, "kto", rows, hyperparameters={"n_epochs": 1}, held_out=rows[:2])
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    warnings = [event.message for event in events_of(folder) if isinstance(event, WarningEvent)]
    assert any(f"every row's label is {str(label).lower()}" in message for message in warnings)
    report = json.loads((folder / "output" / "report.json").read_text())
    assert "margin" not in {measure["name"] for measure in report["comparison"]}


def test_bad_rows_are_refused_with_their_line(tiny_base: Path, tmp_path: Path) -> None:
    cases = {
        "no label": ({**labelled("a", "b", True), "label": None}, "line 13"),
        "no room": (labelled("字" * 300, "b", True), "line 13"),
    }
    count = len(answers(7))
    assert count == 12
    for name, (row, place) in cases.items():
        folder = job(tmp_path / name.replace(" ", "-"), tiny_base, "kto", [*answers(7), row])
        assert run_training_job(folder, StopFlag()) is ExitCode.BAD_INPUT
        error = events_of(folder)[-1]
        assert isinstance(error, ErrorEvent)
        assert error.code == "invalid_training_file"
        assert place in error.message
