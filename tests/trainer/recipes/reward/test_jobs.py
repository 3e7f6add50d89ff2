"""Whole reward jobs: what they leave, who can load it, resuming, chaining, and the better weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from safetensors.torch import load_file
from transformers import AutoTokenizer

from tests.trainer.recipes.dpo.jobs import job, preferences
from tests.trainer.recipes.reward.jobs import rankings
from tests.trainer.workdirs import events_of, training_rows
from trainer.contract.events import ErrorEvent, EvaluationEvent, StepEvent, WarningEvent
from trainer.contract.result import ExitCode, read_manifest
from trainer.contract.rows import ChatRow
from trainer.engine.reward.scorer import ResponseScorer
from trainer.kit.stop import StopFlag
from trainer.run import run_training_job

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
WEIGHTS = "output/adapter/adapter_model.safetensors"
HEAD = "base_model.model.score.weight"
SHORT = {"n_epochs": 2, "batch_size": 3, "checkpoint_steps": 2, "learning_rate_multiplier": 5}
DEFAULTS = {"margin": False, "centering": 0.0, "skip_invalid_rows": 0.0}
START = {"id": "ft:tiny:<org>::one", "job_id": "ftjob-one", "sha256": "0" * 64}


@pytest.fixture(scope="module")
def finished(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward") / "job"
    hyperparameters = {**SHORT, "lora": {"rank": 4, "alpha": 8, "dropout": 0.1}}
    job(folder, tiny_base, "reward", rankings(12), hyperparameters=hyperparameters, held_out=rankings(8))
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    return folder


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "output" / "report.json").read_text())
    return found


def conversations() -> list[list[dict[str, str]]]:
    answers = ["好", "我很好, 谢谢! 😀", "No, and no again.", "Gladly, and at some length, too. " * 4]
    return [[{"role": "user", "content": "你好吗?"}, {"role": "assistant", "content": text}] for text in answers]


def assert_peft_agrees(folder: Path, base: Path, tmp_path: Path) -> None:
    """Load the result with PEFT's own class, and compare the scores of one padded batch with the service's."""
    adapter = tmp_path / "adapter"
    shutil.copytree(folder / "output" / "adapter", adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS"
    assert config["modules_to_save"] == ["score"]
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    model = AutoPeftModelForSequenceClassification.from_pretrained(str(adapter), num_labels=1).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(adapter))
    texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in conversations()]
    batch = tokenizer(texts, padding=True, padding_side="right", add_special_tokens=False, return_tensors="pt")
    assert len(set(batch["attention_mask"].sum(1).tolist())) == len(texts)
    with torch.no_grad():
        theirs: list[float] = model(**batch).logits[:, 0].tolist()
    rows = [ChatRow.model_validate({"messages": chat}) for chat in conversations()]
    assert ResponseScorer(base, folder / "output" / "adapter").score_conversations([rows]) == [
        pytest.approx(theirs, abs=1e-5)
    ]
    assert len(set(theirs)) == len(theirs)


@pytest.mark.slow
def test_the_result_loads_with_peft_s_own_class(finished: Path, tiny_base: Path, tmp_path: Path) -> None:
    assert_peft_agrees(finished, tiny_base, tmp_path)
    facts = read_manifest(finished).facts
    assert facts["kind"] == "reward"
    card = (finished / "output" / "adapter" / "README.md").read_text()
    assert "AutoModelForSequenceClassification" in card


@pytest.mark.slow
def test_pairs_of_preferences_train_a_reward_model_too(tiny_base: Path, tmp_path: Path) -> None:
    folder = job(tmp_path / "job", tiny_base, "reward", preferences(12), hyperparameters=SHORT, held_out=preferences(8))
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    assert_peft_agrees(folder, tiny_base, tmp_path)
    measures = {measure["name"]: measure for measure in report_of(folder)["comparison"]}
    assert measures["loss"]["tuned"]["value"] < measures["loss"]["base"]["value"]


def test_the_report_compares_accuracy_first_places_and_margin(finished: Path) -> None:
    report = report_of(finished)
    measures = {measure["name"]: measure for measure in report["comparison"]}
    assert next(iter(measures)) == "pair_accuracy"
    for name in ("pair_accuracy", "top1", "margin"):
        for side in ("base", "tuned", "difference"):
            found = measures[name][side]
            assert found["low"] <= found["value"] <= found["high"]
    # Ties are no pairs: of the eight held-out rankings, line 2 has three responses, two of them equally good.
    assert measures["pair_accuracy"]["weight"] == sum((1, 2, 5, 1, 3, 5, 1, 3))
    assert measures["margin"]["tuned"]["value"] > measures["margin"]["base"]["value"]
    assert report["kind"] == "reward"
    assert report["hyperparameters"]["settings"] == DEFAULTS
    html = (finished / "output" / "report.html").read_text()
    for words in ("pair accuracy", "best response first", "margin of the better response"):
        assert words in html
    assert html.count("<svg") >= 3


def test_each_step_and_evaluation_has_the_method_s_numbers(finished: Path) -> None:
    steps = [event for event in events_of(finished) if isinstance(event, StepEvent)]
    assert all(event.metrics.keys() == {"pair_accuracy", "margin", "score"} for event in steps)
    first = next(event for event in events_of(finished) if isinstance(event, EvaluationEvent))
    assert first.model == "base"
    assert first.valid_loss is not None
    assert first.metrics.keys() == {"pair_accuracy", "margin", "top1"}


@pytest.mark.slow
def test_a_resumed_job_ends_with_the_same_bytes(finished: Path, tiny_base: Path, tmp_path: Path) -> None:
    spec = json.loads((finished / "job.json").read_text())
    folder = job(tmp_path / "job", tiny_base, "reward", rankings(12), held_out=rankings(8), resume=True)
    (folder / "job.json").write_text(json.dumps({**spec, "resume": True}))
    middle = sorted((finished / "checkpoints").iterdir(), key=lambda path: int(path.name[5:]))[0]
    shutil.copytree(middle, folder / "checkpoint")
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    steps = [event for event in events_of(folder) if isinstance(event, StepEvent)]
    assert steps[0].step == int(middle.name[5:]) + 1
    assert HEAD in load_file(folder / WEIGHTS)
    assert (folder / WEIGHTS).read_bytes() == (finished / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_a_stop_leaves_a_checkpoint_to_resume_from(finished: Path, tiny_base: Path, tmp_path: Path) -> None:
    spec = json.loads((finished / "job.json").read_text())
    stopped = job(tmp_path / "stopped", tiny_base, "reward", rankings(12), held_out=rankings(8))
    (stopped / "job.json").write_text(json.dumps(spec))
    assert run_training_job(stopped, _StopAfter(stopped, step=3)) is ExitCode.STOPPED
    folder = job(tmp_path / "resumed", tiny_base, "reward", rankings(12), held_out=rankings(8))
    (folder / "job.json").write_text(json.dumps({**spec, "resume": True}))
    assert {int(path.name[5:]) for path in (stopped / "checkpoints").iterdir()} < set(range(1, 8))
    last = max((stopped / "checkpoints").iterdir(), key=lambda path: int(path.name[5:]))
    shutil.copytree(last, folder / "checkpoint")
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    assert (folder / WEIGHTS).read_bytes() == (finished / WEIGHTS).read_bytes()


class _StopAfter(StopFlag):
    """A request to stop that comes when a step's event has been written."""

    def __init__(self, folder: Path, *, step: int) -> None:
        self._folder, self._step = folder, step

    @property
    def raised(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return any(isinstance(event, StepEvent) and event.step >= self._step for event in events_of(self._folder))


def chained(tmp_path: Path, base: Path, start: Path, **hyperparameters: Any) -> Path:
    given = {"n_epochs": 1, "batch_size": 3, "lora": "auto", **hyperparameters}
    folder = job(tmp_path / "job", base, "reward", rankings(9), hyperparameters=given, start=START)
    shutil.copytree(start / "output" / "adapter", folder / "start")
    return folder


@pytest.mark.slow
def test_a_job_starts_from_a_supervised_adapter(tiny_base: Path, tmp_path: Path) -> None:
    tuned = job(tmp_path / "sft", tiny_base, "supervised", training_rows(6), hyperparameters={"n_epochs": 1})
    assert run_training_job(tuned, StopFlag()) is ExitCode.DONE
    folder = chained(tmp_path, tiny_base, tuned, learning_rate_multiplier=1e-6)
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    given, found = load_file(tuned / WEIGHTS), load_file(folder / WEIGHTS)
    assert found.keys() == {*given, HEAD}
    # The rate is next to nothing: what comes out is what it started from, and a head that has only been drawn.
    for name, weights in given.items():
        torch.testing.assert_close(found[name], weights, atol=1e-5, rtol=0)
    assert any(bool(weights.any()) for name, weights in given.items() if "lora_B" in name)
    assert_peft_agrees(folder, tiny_base, tmp_path)


@pytest.mark.slow
def test_a_job_starts_from_a_reward_model_with_its_head(finished: Path, tiny_base: Path, tmp_path: Path) -> None:
    folder = chained(tmp_path, tiny_base, finished, learning_rate_multiplier=1e-6)
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    given, found = load_file(finished / WEIGHTS), load_file(folder / WEIGHTS)
    assert found.keys() == given.keys()
    for name, weights in given.items():
        torch.testing.assert_close(found[name], weights, atol=1e-5, rtol=0)
    assert report_of(folder)["hyperparameters"]["lora"]["rank"] == 4


@pytest.mark.slow
def test_early_stopping_and_the_best_weights(tiny_base: Path, tmp_path: Path) -> None:
    hyperparameters = {
        "n_epochs": 10,
        "batch_size": 3,
        "eval_steps": 1,
        "learning_rate_multiplier": 5,
        "early_stopping_patience": 3,
        "result": "best",
    }
    folder = job(tmp_path, tiny_base, "reward", rankings(12), hyperparameters=hyperparameters, held_out=rankings(8))
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    events = events_of(folder)
    tuned = [event for event in events if isinstance(event, EvaluationEvent) and event.model == "tuned"]
    accuracies = [event.metrics["pair_accuracy"] for event in tuned]
    best = accuracies.index(max(accuracies))
    assert len(accuracies) == best + 1 + 3 < 40
    said = [event.message for event in events if isinstance(event, WarningEvent)]
    assert any(message.startswith("Stopped early at step") for message in said)
    assert any(f"weights of step {tuned[best].step}" in message for message in said)
    assert report_of(folder)["comparison"][0]["tuned"]["value"] == pytest.approx(max(accuracies))


@pytest.mark.slow
def test_rows_that_end_with_the_padding_token_are_read_at_their_end(tiny_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    template = base / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_end|>\n", "<|im_end|>"))
    folder = job(tmp_path / "job", base, "reward", rankings(6), hyperparameters={"n_epochs": 1})
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    tokenizer = AutoTokenizer.from_pretrained(str(folder / "output" / "adapter"))
    assert tokenizer.pad_token == "<|endoftext|>"
    said = [event.message for event in events_of(folder) if isinstance(event, WarningEvent)]
    assert any("pads with <|endoftext|>" in message for message in said)
    # The verification compared with the scores that transformers' own class reads.
    assert report_of(folder)["verification"]["max_abs_difference"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        {"dtype": "bfloat16"},
        {"gradient_checkpointing": True, "gradient_accumulation_steps": 2},
        {"lora": {"rank": 4, "use_dora": True, "use_rslora": True, "target_modules": ["q_proj", "v_proj"]}},
        {"margin": True, "centering": 0.01},
    ],
    ids=["bfloat16", "checkpointing", "dora", "margin"],
)
def test_options(tiny_base: Path, tmp_path: Path, asked: dict[str, Any]) -> None:
    rows = [{**row, "responses": [{**r, "score": -float(r["rank"])} for r in row["responses"]]} for row in rankings(12)]
    folder = job(tmp_path / "job", tiny_base, "reward", rows, hyperparameters={**SHORT, **asked}, held_out=rows[:8])
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    measures = {measure["name"]: measure for measure in report_of(folder)["comparison"]}
    assert measures["loss"]["tuned"]["value"] < measures["loss"]["base"]["value"]
    assert load_file(folder / WEIGHTS)[HEAD].dtype == torch.float32
    shown = report_of(folder)["hyperparameters"]
    assert shown["settings"] == {name: asked.get(name, default) for name, default in DEFAULTS.items()}


def test_a_language_model_cannot_start_from_a_reward_model(finished: Path, tiny_base: Path, tmp_path: Path) -> None:
    folder = job(tmp_path, tiny_base, "supervised", training_rows(6), hyperparameters={"lora": "auto"}, start=START)
    shutil.copytree(finished / "output" / "adapter", folder / "start")
    assert run_training_job(folder, StopFlag()) is ExitCode.BAD_INPUT
    error = events_of(folder)[-1]
    assert isinstance(error, ErrorEvent)
    assert error.code == "incompatible_start_model"
    assert "starts from a reward model" in error.message
    assert not (folder / "output").exists()
