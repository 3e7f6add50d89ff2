"""Rankings that cannot teach an order are refused with file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trainer.recipes.dpo.jobs import job, message, preference
from tests.trainer.recipes.reward.jobs import ranking, rankings
from tests.trainer.workdirs import events_of
from trainer.contract.events import ErrorEvent, WarningEvent
from trainer.contract.result import MANIFEST_NAME, ExitCode
from trainer.kit.stop import StopFlag
from trainer.run import run_training_job

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def with_role(role: str) -> dict[str, Any]:
    row = ranking("Hi", [("a", 1), ("b", 2)])
    row["responses"][1]["message"]["role"] = role
    return row


def refusal(folder: Path) -> ErrorEvent:
    assert run_training_job(folder, StopFlag()) is ExitCode.BAD_INPUT
    assert not (folder / MANIFEST_NAME).exists()
    assert not (folder / "output").exists()
    error = events_of(folder)[-1]
    assert isinstance(error, ErrorEvent)
    return error


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ranking("Hi", [("alone", 1)]), "line 4: responses: has 1; a ranking needs from 2 to 64 responses"),
        (ranking("Hi", [("a", 2), ("b", 2), ("c", 2)]), "line 4: responses: all have the same rank"),
        (ranking("Hi", [("a", 0), ("b", 2)]), "line 4: responses[0].rank: is 0"),
        (ranking("你好", [("一样", 1), ("b", 3), ("一样", 2)]), "line 4: responses[2]: says the same as responses[0]"),
        (ranking("Hi", [("a", 1), ("b", 2)], [0.1, 0.2]), "line 4: responses[0].score: is lower than"),
        (with_role("user"), "line 4: responses[1].message.role: is user"),
        (preference("Hi", "same", "same"), "line 4: preferred_output and non_preferred_output: are the same"),
        (ranking("字" * 200, [("a", 1), ("b", 2)]), "line 4: the prompt leaves no room for a response in the context"),
    ],
    ids=["one", "all tied", "rank 0", "equal texts", "scores", "role", "equal pair", "long prompt"],
)
@pytest.mark.parametrize("param", ["training_file", "validation_file"])
def test_bad_rows_are_refused_with_file_and_line(
    tiny_base: Path, tmp_path: Path, row: dict[str, Any], said: str, param: str
) -> None:
    good, bad = rankings(6), [*rankings(3), row]
    rows, held_out = (bad, good) if param == "training_file" else (good, bad)
    error = refusal(job(tmp_path, tiny_base, "reward", rows, held_out=held_out))
    assert error.code == f"invalid_{param}"
    assert error.param == param
    assert error.message.startswith(f"{param.removesuffix('_file')}.jsonl has 1 line(s)")
    assert "line 4: " in error.message
    assert said in error.message


@pytest.mark.slow
def test_responses_longer_than_the_context_are_left_out_and_said(tiny_base: Path, tmp_path: Path) -> None:
    rows = rankings(6)
    rows[3] = ranking("Hi", [("字" * 200, 1), ("good", 2), ("bad", 3)])
    rows[4] = ranking("Hi", [("字" * 200, 1), ("bad", 2)])
    folder = job(tmp_path, tiny_base, "reward", rows, hyperparameters={"n_epochs": 1})
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    said = [event.message for event in events_of(folder) if isinstance(event, WarningEvent)]
    assert any("1 response(s) are longer than 512 tokens" in message and "line 4" in message for message in said)
    assert any("1 row(s) have no pair of responses" in message and "line 5" in message for message in said)


def test_a_file_without_a_pair_that_fits_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    rows = [ranking("Hi", [("字" * 200, 1), ("bad", 2)])]
    error = refusal(job(tmp_path, tiny_base, "reward", rows))
    assert error.code == "no_trainable_rows"
    assert "training.jsonl has no row with pair of responses within 512 tokens" in error.message


@pytest.mark.slow
def test_a_margin_needs_scores(tiny_base: Path, tmp_path: Path) -> None:
    rows = [ranking("Hi", [("a", 1), ("b", 2)]), preference("Hi", "a", "b")]
    error = refusal(job(tmp_path / "none", tiny_base, "reward", rows, hyperparameters={"margin": True}))
    assert error.param == "training_file"
    assert "margin needs each response's own score" in error.message
    rows[0] = ranking("Hi", [("a", 1), ("b", 2)], [2.0, 1.0])
    folder = job(tmp_path / "some", tiny_base, "reward", rows, hyperparameters={"margin": True, "n_epochs": 1})
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    said = [event.message for event in events_of(folder) if isinstance(event, WarningEvent)]
    assert any("1 ranking(s) lack a response's score, at line 2" in message for message in said)


@pytest.mark.slow
def test_a_tool_call_is_a_response_but_a_tool_s_result_is_not(tiny_base: Path, tmp_path: Path) -> None:
    row = ranking("Hi", [("a", 1), ("b", 2)])
    row["responses"][0]["message"] = {"role": "tool", "content": "5", "tool_call_id": "x"}
    assert "is the id of no earlier call" in refusal(job(tmp_path / "tool", tiny_base, "reward", [row])).message
    call = {"id": "x", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    row["responses"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    row["input"]["messages"].insert(0, message("system", "Be brief."))
    folder = job(tmp_path / "call", tiny_base, "reward", [row, *rankings(3)], hyperparameters={"n_epochs": 1})
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
