"""What one whole run leaves behind."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainer.workdirs import events_of
from trainer.contract.events import (
    CheckpointEvent,
    ConfiguredEvent,
    EvaluationEvent,
    PhaseEvent,
    StepEvent,
    WarningEvent,
)
from trainer.contract.job import LineageEntry
from trainer.contract.result import ADAPTER_FOLDER, REPORT_HTML, REPORT_JSON, RESULT_CSV, read_manifest
from trainer.report.model import Report
from trainer.report.write import render_html

pytestmark = pytest.mark.integration


def no_constants(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def test_phases_come_in_order_and_no_error(finished: Path) -> None:
    events = events_of(finished)
    assert [event.phase for event in events if isinstance(event, PhaseEvent)] == [
        "tokenizing",
        "loading",
        "evaluating_base",
        "training",
        "evaluating",
        "exporting",
        "verifying",
        "reporting",
    ]
    assert not [event for event in events if event.type == "error"]


def test_configuration_is_numbers_and_counts(finished: Path) -> None:
    (configured,) = [event for event in events_of(finished) if isinstance(event, ConfiguredEvent)]
    assert "auto" not in json.dumps(configured.hyperparameters)
    assert configured.hyperparameters["total_steps"] == 8  # 23 rows: 8 batches of 3, 4 updates, twice
    assert configured.counts["rows"] == 23
    assert configured.counts["validation_rows"] == 8
    assert (configured.counts["cut"], configured.counts["dropped"]) == (1, 1)
    assert 0 < configured.counts["trained_tokens_per_epoch"] < configured.counts["tokens_per_epoch"]
    assert 0 < configured.counts["trainable_parameters"] < configured.counts["total_parameters"]


def test_cut_and_dropped_rows_are_named_by_line(finished: Path) -> None:
    messages = [event.message for event in events_of(finished) if isinstance(event, WarningEvent)]
    assert any("1 row(s) were cut to 128 tokens, at line 5." in message for message in messages)
    assert any("1 row(s) have no token to train on, at line 6." in message for message in messages)


def test_steps_count_tokens_and_learn(finished: Path) -> None:
    steps = [event for event in events_of(finished) if isinstance(event, StepEvent)]
    assert [step.step for step in steps] == list(range(1, 9))
    (configured,) = [event for event in events_of(finished) if isinstance(event, ConfiguredEvent)]
    assert steps[3].tokens_seen == configured.counts["tokens_per_epoch"]
    assert steps[-1].tokens_seen == 2 * configured.counts["tokens_per_epoch"]
    assert all(step.learning_rate > 0 and step.grad_norm and step.grad_norm > 0 for step in steps)
    assert steps[-1].train_loss < steps[0].train_loss
    assert steps[-1].seconds_left == 0


def test_evaluations_of_base_and_tuned(finished: Path) -> None:
    evaluations = [event for event in events_of(finished) if isinstance(event, EvaluationEvent)]
    assert [(event.model, event.step) for event in evaluations] == [
        ("base", 0),
        ("tuned", 2),
        ("tuned", 4),
        ("tuned", 6),
        ("tuned", 8),
    ]
    assert evaluations[-1].full
    before, after = evaluations[0].valid_loss, evaluations[-1].valid_loss
    assert before is not None
    assert after is not None
    assert after < before


def test_checkpoints_are_whole_and_the_last_three_are_kept(finished: Path) -> None:
    announced = [event for event in events_of(finished) if isinstance(event, CheckpointEvent)]
    assert [event.step for event in announced] == [2, 4, 6, 8]
    assert announced[-1].path == "checkpoints/step-8"
    assert {"train_loss", "full_valid_loss"} <= announced[-1].metrics.keys()
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["step-4", "step-6", "step-8"]
    for folder in (finished / "checkpoints").iterdir():
        manifest = read_manifest(folder)
        assert manifest.verify_files(folder) == []
        names = {entry.path for entry in manifest.files}
        assert {"adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "progress.json"} <= names
        assert "training_args.bin" not in names


def test_manifest_covers_the_output_and_notices_tampering(finished: Path, tmp_path: Path) -> None:
    manifest = read_manifest(finished)
    assert manifest.verify_files(finished) == []
    files = {path.relative_to(finished).as_posix() for path in (finished / "output").rglob("*") if path.is_file()}
    assert {entry.path for entry in manifest.files} == files
    steps = [event for event in events_of(finished) if isinstance(event, StepEvent)]
    assert manifest.trained_tokens == steps[-1].tokens_seen
    for entry in manifest.files:
        target = tmp_path / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((finished / entry.path).read_bytes())
    (tmp_path / RESULT_CSV).write_text("changed")
    (tmp_path / REPORT_JSON).unlink()
    assert manifest.verify_files(tmp_path) == [
        "output/report.json is missing",
        "output/step_metrics.csv does not have the SHA-256 that the manifest states",
    ]


def test_result_csv_has_the_wire_s_header_and_blanks(finished: Path) -> None:
    text = (finished / RESULT_CSV).read_text()
    assert text.splitlines()[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["step"] for row in rows] == [str(step) for step in range(1, 9)]
    assert rows[0]["valid_loss"] == ""
    assert float(rows[1]["valid_loss"]) > 0
    assert all(0 <= float(row["train_accuracy"]) <= 1 for row in rows)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks by the old name
def test_adapter_loads_with_plain_peft(finished: Path, tiny_base: Path) -> None:
    folder = finished / ADAPTER_FOLDER
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-base"
    assert config["auto_mapping"] is None
    assert str(finished) not in (folder / "README.md").read_text() + json.dumps(config)
    assert {"adapter_model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md", "manifest.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert read_manifest(folder).verify_files(folder) == []
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), str(folder))
    ids = AutoTokenizer.from_pretrained(folder)("Say 3.", return_tensors="pt")
    with torch.no_grad():
        difference = (base(**ids).logits - tuned(**ids).logits).abs().max()
    assert difference > 1e-3


def test_the_program_on_the_card_runs(finished: Path, tiny_base: Path) -> None:
    folder = finished / ADAPTER_FOLDER
    (program,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    program = program.replace("path/to/the/base", str(tiny_base)).replace("path/to/this/folder", str(folder))
    names: dict[str, Any] = {}
    exec(program, names)
    assert names["model"].generation_config.eos_token_id == [2]
    assert names["tokenizer"].eos_token == "<|im_end|>"


def test_report_json_is_complete_and_has_no_nan(finished: Path) -> None:
    text = (finished / REPORT_JSON).read_text()
    report = json.loads(text, parse_constant=no_constants)
    assert report["verdict"]["outcome"] == "better"
    assert report["measured_on"] == "validation"
    loss, accuracy = report["comparison"]
    assert (loss["name"], accuracy["name"]) == ("loss", "token_accuracy")
    assert loss["tuned"]["value"] < loss["base"]["value"]
    assert loss["difference"]["high"] < 0
    assert math.isclose(report["perplexity"]["tuned"], math.exp(loss["tuned"]["value"]))
    assert report["verification"]["max_abs_difference"] <= report["verification"]["tolerance"]
    assert report["training"]["cut_lines"] == [5]
    assert report["training"]["dropped_lines"] == [6]
    assert report["environment"]["dtype"]["dtype"] in report["environment"]["dtype"]["seconds"]
    assert len(report["samples"]) == 3
    assert report["tokens_per_second"] > 0
    assert str(finished) not in text


def test_report_html_is_self_contained_and_escaped(finished: Path) -> None:
    html = (finished / REPORT_HTML).read_text()
    assert html.startswith("<!doctype html>")
    assert '<html lang="en">' in html
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "ft:tiny:&lt;org&gt;:测试:test" in html
    assert html.count("<svg ") == 2
    assert not re.search(r"""(src|href)=["']?(https?:|//)""", html)
    assert "prefers-color-scheme: dark" in html


@pytest.mark.parametrize(("also_trained", "outcome"), [(0, "better"), (1, "better"), (None, "not_held_out")])
def test_only_rows_that_were_not_trained_on_are_called_held_out(
    finished: Path, also_trained: int | None, outcome: str
) -> None:
    facts = json.loads((finished / REPORT_JSON).read_bytes())
    report = Report.model_validate({name: facts[name] for name in facts if name in Report.model_fields})
    assert report.validation is not None
    count = report.validation.rows if also_trained is None else also_trained
    report = report.model_copy(update={"validation": report.validation.model_copy(update={"also_trained": count})})
    assert report.verdict.outcome == outcome
    html = render_html(report)
    assert ("Every row of the validation file is in the training file too" in html) == (also_trained is None)
    assert ("rows of the validation file are in the training file too" in html) == (also_trained == 1)


def test_a_lineage_shows_a_shared_model_by_its_name_alone(finished: Path) -> None:
    facts = json.loads((finished / REPORT_JSON).read_bytes())
    report = Report.model_validate({name: facts[name] for name in facts if name in Report.model_fields})
    shared = LineageEntry(model="ft:tiny:org:共:1", job_id=None, method=None, training_sha256=None)
    own = LineageEntry(model="ft:tiny:org:我:2", job_id="ftjob-own", method="dpo", training_sha256="a" * 64)
    html = render_html(report.model_copy(update={"lineage": (shared, own)}))
    assert "<th>parent</th><td>ft:tiny:org:共:1<br><small>shared by another project</small></td>" in html
    assert (
        f"<th>parent, dpo</th><td>ft:tiny:org:我:2<br><small><code>ftjob-own, training data sha256 {'a' * 64}" in html
    )


def test_nothing_is_left_over(finished: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == [
        "base",
        "checkpoints",
        "data",
        "events.jsonl",
        "job.json",
        "manifest.json",
        "output",
    ]
