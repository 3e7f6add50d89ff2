"""Both files are read, cut and warned about in the same way, whatever the method's rows are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.template_shapes import SHAPES
from tests.trainer.recipes.dpo.jobs import job, message, preference
from tests.trainer.recipes.kto.jobs import labelled
from tests.trainer.workdirs import chat
from trainer.contract.job import JobSpec
from trainer.contract.result import ExitCode
from trainer.engine.data.row_pipeline import RowPipeline
from trainer.kit.errors import TrainerError
from trainer.kit.event_sink import EventSink
from trainer.kit.job_context import JobContext
from trainer.kit.stop import StopFlag
from trainer.recipes import recipe_for

Rows = list[dict[str, Any]]


def prompt(question: str, _answer: str) -> dict[str, Any]:
    return {"input": {"messages": [message("user", question)]}}


LENGTH = {"function": "length", "parameters": {"target": 5}}
ROW_MAKERS: dict[str, tuple[Callable[[str, str], dict[str, Any]], dict[str, Any]]] = {
    "supervised": (chat, {}),
    "dpo": (lambda question, answer: preference(question, answer, answer + "!"), {}),
    "orpo": (lambda question, answer: preference(question, answer, answer + "!"), {}),
    "kto": (lambda question, answer: labelled(question, answer, len(question) % 2 == 0), {}),
    "reward": (lambda question, answer: preference(question, answer, answer + "!"), {}),
    "ppo": (prompt, {"reward": LENGTH, "max_new_tokens": 16}),
    "grpo": (prompt, {"reward": LENGTH, "max_new_tokens": 16}),
}


def read(workdir: Path, base: Path, kind: str, rows: Rows, **more: Any) -> tuple[RowPipeline[Any, Any, Any], list[str]]:
    asked = {**ROW_MAKERS[kind][1], **more.pop("hyperparameters", {})}
    job(workdir, base, kind, rows, hyperparameters=asked, **more)
    spec = JobSpec.model_validate_json((workdir / "job.json").read_bytes())
    warnings: list[str] = []
    data = recipe_for(JobContext(workdir, spec, EventSink(workdir), StopFlag(), warnings.append)).data
    data.read_data()
    return data, warnings


def some_rows(kind: str) -> Rows:
    make = ROW_MAKERS[kind][0]
    return [make("你好" + "?" * number, "很好。" * (1 + number)) for number in range(5)]


@pytest.mark.parametrize("kind", ROW_MAKERS)
def test_validation_rows_that_are_trained_on_are_named(tmp_path: Path, tiny_base: Path, kind: str) -> None:
    rows = some_rows(kind)
    new = ROW_MAKERS[kind][0]("新的问题", "新的回答。")
    data, warnings = read(tmp_path / "some", tiny_base, kind, rows, held_out=[rows[3], new, rows[0]])
    assert data.validation is not None
    assert data.validation.also_trained == (1, 3)
    (warning,) = [text for text in warnings if "training file too" in text]
    assert "2 of 3 row(s)" in warning
    assert "line 1, 3" in warning
    data, warnings = read(tmp_path / "none", tiny_base, kind, rows, held_out=[new])
    assert data.validation is not None
    assert data.validation.also_trained == ()
    assert not [text for text in warnings if "training file too" in text]


@pytest.mark.parametrize("kind", ROW_MAKERS)
def test_options_without_effect_are_named(tmp_path: Path, tiny_base: Path, kind: str) -> None:
    asked = {"result": "best"}
    _, warnings = read(tmp_path / "alone", tiny_base, kind, some_rows(kind), hyperparameters=asked)
    assert "result has no effect in this job: nothing is evaluated without a validation file." in warnings
    held_out = [ROW_MAKERS[kind][0]("新的问题", "新的回答。")]
    _, warnings = read(tmp_path / "both", tiny_base, kind, some_rows(kind), hyperparameters=asked, held_out=held_out)
    assert not [text for text in warnings if "no effect" in text]


@pytest.mark.parametrize("kind", ROW_MAKERS)
def test_training_rows_are_the_same_with_and_without_a_validation_file(
    tmp_path: Path, tiny_base: Path, kind: str
) -> None:
    rows, longer = some_rows(kind), [ROW_MAKERS[kind][0]("好" * 80, "长" * 80)]
    alone, _ = read(tmp_path / "alone", tiny_base, kind, rows)
    both, _ = read(tmp_path / "both", tiny_base, kind, rows, held_out=[*some_rows(kind), *longer])
    assert both.max_length == alone.max_length
    assert both.training.rows == alone.training.rows
    assert (alone.measured_on, both.measured_on) == ("training", "validation")
    assert both.validation is not None
    assert both.validation.read == 6
    if kind != "reward":
        assert (len(both.source), len(alone.source)) == (6, 5)


@pytest.mark.parametrize("kind", ROW_MAKERS)
def test_a_validation_file_that_no_row_is_left_of_is_given_up_with_a_warning(
    tmp_path: Path, tiny_base: Path, kind: str
) -> None:
    too_long = [ROW_MAKERS[kind][0]("x" * 300, "never reached")]
    asked = {"max_length": 128}
    data, warnings = read(tmp_path, tiny_base, kind, some_rows(kind), held_out=too_long, hyperparameters=asked)
    assert data.validation is None
    assert data.measured_on == "training"
    assert len(data.source) == (0 if kind == "reward" else 5)
    assert f"validation.jsonl: 1 row(s) have no {data.needed}, at line 1." in warnings
    assert any(warning.startswith("The validation file has no row to measure on") for warning in warnings)


@pytest.mark.parametrize("kind", ROW_MAKERS)
def test_no_training_row_that_fits_is_an_error(tmp_path: Path, tiny_base: Path, kind: str) -> None:
    too_long = [ROW_MAKERS[kind][0]("x" * 300, "never reached")]
    with pytest.raises(TrainerError, match=r"training\.jsonl has no row with") as caught:
        read(tmp_path, tiny_base, kind, too_long, hyperparameters={"max_length": 128})
    assert (caught.value.code, caught.value.param) == ("no_trainable_rows", "training_file")


@pytest.mark.parametrize("kind", ROW_MAKERS)
@pytest.mark.parametrize("name", ["training", "validation"])
def test_a_file_that_is_not_what_the_job_states_is_a_fault(
    tmp_path: Path, tiny_base: Path, kind: str, name: str
) -> None:
    job(tmp_path, tiny_base, kind, some_rows(kind), held_out=some_rows(kind), hyperparameters=ROW_MAKERS[kind][1])
    with (tmp_path / "data" / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    spec = JobSpec.model_validate_json((tmp_path / "job.json").read_bytes())
    data = recipe_for(JobContext(tmp_path, spec, EventSink(tmp_path), StopFlag(), warn=lambda _: None)).data
    with pytest.raises(TrainerError, match="SHA-256") as caught:
        data.read_data()
    assert (caught.value.code, caught.value.exit_code) == ("data_corrupted", ExitCode.FAULT)
    assert caught.value.param == f"{name}_file"


ALTERNATING = SHAPES["turns must alternate"].replace("<|open|>", "<|im_start|>").replace("<|close|>", "<|im_end|>")


@pytest.fixture
def alternating_base(tmp_path: Path, tiny_base: Path) -> Path:
    """A base whose template refuses two messages of the assistant in a row."""
    folder = tmp_path / "alternating"
    shutil.copytree(tiny_base, folder)
    (folder / "chat_template.jinja").write_text(ALTERNATING, encoding="utf-8")
    return folder


def greet_first(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row in which the assistant speaks first, which the template refuses."""
    greeting = {"role": "assistant", "content": "你好!", "weight": 0}
    if "messages" in row:
        return {**row, "messages": [greeting, *row["messages"]]}
    return {**row, "input": {"messages": [greeting, *row["input"]["messages"]]}}


@pytest.mark.parametrize("kind", ROW_MAKERS)
def test_rows_that_the_template_refuses_end_the_job_or_are_left_out(
    tmp_path: Path, alternating_base: Path, kind: str
) -> None:
    rows = some_rows(kind)
    rows[3] = greet_first(rows[3])
    with pytest.raises(TrainerError) as caught:
        read(tmp_path / "strict", alternating_base, kind, rows)
    assert (caught.value.code, caught.value.param) == ("unsupported_conversation", "training_file")
    assert "line 4: turns must alternate" in caught.value.message
    data, warnings = read(tmp_path / "w", alternating_base, kind, rows, hyperparameters={"skip_invalid_rows": 0.2})
    preview = data.training.preview_file()
    assert (preview.rows, preview.used, preview.skipped, preview.skipped_lines) == (5, 4, 1, (4,))
    assert [warning for warning in warnings if "1 row(s) are left out" in warning and "at line 4" in warning]


def test_a_row_of_several_sequences_is_one_row(tmp_path: Path, tiny_base: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    shape = SHAPES["an empty thought in the newest turn"]
    source = shape.replace("<|open|>", "<|im_start|>").replace("<|close|>", "<|im_end|>")
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    row = chat("a", "b")
    row["messages"] *= 2
    data, _ = read(tmp_path / "w", folder, "supervised", [row, chat("c", "d")])
    assert [one.line for one in data.training.rows] == [1, 1, 2]
    assert data.training.preview_file().used == 2


@pytest.mark.parametrize("kind", ["dpo", "orpo"])
def test_pairs_that_are_equal_after_the_cut_are_dropped(tmp_path: Path, tiny_base: Path, kind: str) -> None:
    common = "The minutes say the same in both versions up to this point. " * 2
    same = preference("Write the minutes.", common + "All agreed.", common + "Nobody agreed.")
    other = preference("Write the minutes.", "Yes. " + common, "No. " + common)
    cut = {"hyperparameters": {"max_length": 128}}
    data, warnings = read(tmp_path / "w", tiny_base, kind, [same, other, same], **cut)
    assert [pair.line for pair in data.training.rows] == [2]
    assert data.training.dropped == (1, 3)
    assert [warning for warning in warnings if "up to where they differ, at line 1, 3" in warning]
    with pytest.raises(TrainerError) as caught:
        read(tmp_path / "none", tiny_base, kind, [same, same], **cut)
    assert caught.value.code == "no_trainable_rows"


def test_thoughts_without_any_are_warned_about(tmp_path: Path, tiny_base: Path) -> None:
    _, warnings = read(tmp_path / "w", tiny_base, "supervised", [chat("a", "b")], hyperparameters={"thoughts": "drop"})
    assert [warning for warning in warnings if "thoughts is drop, which changes nothing" in warning]
    row = chat("a", "b")
    row["messages"][1]["reasoning_content"] = "想一想"
    _, warnings = read(tmp_path / "v", tiny_base, "supervised", [row], hyperparameters={"thoughts": "drop"})
    assert warnings == []
