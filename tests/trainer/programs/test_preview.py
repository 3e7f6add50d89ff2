"""A preview says what a run then does: rows, tokens, masks, steps."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.preloaded import start_preloaded
from tests.trainer.workdirs import chat, environment, events_of, jsonl, lay_out, run, run_here, training_rows
from trainer.contract.events import ConfiguredEvent, WarningEvent
from trainer.contract.preview import PREVIEW_NAME, PreviewOutcome
from trainer.contract.result import ExitCode, read_manifest
from trainer.programs.preview import main

pytestmark = pytest.mark.integration


def outcome_of(workdir: Path, status: int) -> PreviewOutcome:
    outcome = PreviewOutcome.model_validate_json((workdir / PREVIEW_NAME).read_bytes())
    assert status == (ExitCode.BAD_INPUT if outcome.failed else ExitCode.DONE)
    return outcome


def preview(workdir: Path, rows: int = 3) -> PreviewOutcome:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "environ", dict(os.environ))
        return outcome_of(workdir, main([str(workdir), str(rows)]))


def preview_by_the_program(workdir: Path) -> PreviewOutcome:
    command = [*start_preloaded().command("trainer.programs.preview"), str(workdir), "3"]
    return outcome_of(workdir, subprocess.run(command, env=environment(), timeout=200, check=False).returncode)


def rows_with_losses() -> list[dict[str, Any]]:
    rows = training_rows()
    rows[4] = chat("long", "字" * 200)  # cut
    rows[5] = chat("x" * 300, "never reached")  # dropped
    return rows


def test_a_preview_of_a_supervised_job_matches_its_run(tmp_path: Path, tiny_base: Path) -> None:
    asked = {"n_epochs": 3, "batch_size": 3, "gradient_accumulation_steps": 2, "max_length": 128, "dtype": "float32"}
    workdir = lay_out(tmp_path / "w", tiny_base, jsonl(rows_with_losses()), jsonl(training_rows(4)), asked)
    told = preview_by_the_program(workdir).counted
    assert told is not None
    assert not (workdir / "checkpoints").exists()
    assert run(workdir).returncode == ExitCode.DONE

    configured = next(event for event in events_of(workdir) if isinstance(event, ConfiguredEvent))
    assert told.hyperparameters == configured.hyperparameters
    assert told.training.cut_lines == (5,)
    assert told.training.dropped_lines == (6,)
    assert told.training.rows == 24
    assert {
        "rows": told.training.used,
        "tokens_per_epoch": told.training.tokens,
        "trained_tokens_per_epoch": told.training.trained_tokens,
        "cut": told.training.cut,
        "dropped": told.training.dropped,
    }.items() <= configured.counts.items()
    assert told.tokens == read_manifest(workdir).trained_tokens
    assert told.tokens_exact
    assert told.steps == configured.hyperparameters["total_steps"]
    assert f"{configured.counts['trainable_parameters']:,} trained" in told.memory.method
    assert [w.message for w in events_of(workdir) if isinstance(w, WarningEvent)][: len(told.warnings)] == [
        *told.warnings
    ]


def test_the_sample_has_the_spans_that_are_trained_on(tmp_path: Path, tiny_base: Path) -> None:
    rows = [
        {"messages": [
            {"role": "user", "content": "天气?"},
            {"role": "assistant", "content": "晴天。", "weight": 0},
            {"role": "user", "content": "明天呢?"},
            {"role": "assistant", "content": "下雨😀。"},
        ]},
        chat("Say it.", "y" * 2000),
    ]  # fmt: skip
    told = preview(lay_out(tmp_path / "w", tiny_base, jsonl(rows), None, {"max_length": 512}), rows=5).counted
    assert told is not None
    first, second = told.sample
    assert "".join(token.text for token in first.tokens) == (
        "<|im_start|>user\n天气?<|im_end|>\n<|im_start|>assistant\n晴天。<|im_end|>\n"
        "<|im_start|>user\n明天呢?<|im_end|>\n<|im_start|>assistant\n下雨😀。<|im_end|>\n"
    )
    assert "".join(token.text for token in first.tokens if token.trained) == "下雨😀。<|im_end|>"
    assert sum(token.trained for row in told.sample for token in row.tokens) == told.training.trained_tokens
    assert (first.line, first.part, second.line) == (1, "conversation", 2)
    assert len(second.tokens) == 512


PAIR = {
    "input": {"messages": [{"role": "user", "content": "你好?"}]},
    "preferred_output": [{"role": "assistant", "content": "好"}],
    "non_preferred_output": [{"role": "assistant", "content": "no no"}],
}
PROMPT = {"input": {"messages": [{"role": "user", "content": "Say a."}]}}
REWARD = {"reward": {"function": "contains", "parameters": {"words": ["a"]}}, "max_new_tokens": 6, "iterations": 2}
OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dpo": (PAIR, {}),
    "orpo": (PAIR, {}),
    "reward": (PAIR, {}),
    "kto": ({"input": PAIR["input"], "output": PAIR["preferred_output"], "label": True}, {}),
    "pretraining": ({"text": "A text of some length, 你好. " * 9}, {"max_length": 32}),
}


@pytest.mark.parametrize("method", OTHERS)
def test_previews_of_other_methods_count_the_same_tokens_as_their_runs(
    method: str, tmp_path: Path, tiny_base: Path
) -> None:
    row, own = OTHERS[method]
    asked = {"n_epochs": 2, "batch_size": 2, "dtype": "float32", "lora": {"rank": 2}, **own}
    workdir = lay_out(
        tmp_path / "w",
        tiny_base,
        jsonl([row] * 5),
        method={"type": method, method: {"hyperparameters": asked}},
        sample_count=0,
    )
    told = preview(workdir).counted
    assert told is not None
    assert run_here(workdir) == ExitCode.DONE
    assert told.tokens == read_manifest(workdir).trained_tokens
    configured = next(event for event in events_of(workdir) if isinstance(event, ConfiguredEvent))
    assert told.hyperparameters == configured.hyperparameters
    assert any(token.trained for shown in told.sample for token in shown.tokens)


def test_prompts_are_counted_with_the_longest_possible_answers(tmp_path: Path, tiny_base: Path) -> None:
    method = {"type": "grpo", "grpo": {"hyperparameters": {**REWARD, "rollout_prompts": 3, "group_size": 2}}}
    told = preview(lay_out(tmp_path / "w", tiny_base, jsonl([PROMPT] * 4), method=method)).counted
    assert told is not None
    each = told.training.tokens // 4 + 6
    assert (told.tokens, told.tokens_exact) == (2 * 3 * 2 * each, False)
    assert not any(token.trained for shown in told.sample for token in shown.tokens)
    assert told.speed.tokens_per_second is None


def test_rows_that_cannot_be_trained_on_are_reported_as_in_a_run(tmp_path: Path, tiny_base: Path) -> None:
    workdir = lay_out(tmp_path / "w", tiny_base, jsonl([chat("x" * 300, "不会到")]), None, {"max_length": 64})
    failed = preview(workdir).failed
    assert failed is not None
    assert (failed.code, failed.param, failed.fault) == ("no_trainable_rows", "training_file", False)
    assert "training.jsonl" in failed.message


def test_a_budget_of_tokens_is_kept_to_the_token(tmp_path: Path, tiny_base: Path) -> None:
    asked = {"n_epochs": 5, "batch_size": 3, "dtype": "float32"}
    budget = {"max_tokens": 4000}
    workdir = lay_out(tmp_path / "w", tiny_base, jsonl(training_rows()), None, asked, budget=budget, sample_count=0)
    told = preview(workdir).counted
    assert told is not None
    assert told.ended_by == "budget"
    assert run_here(workdir) == ExitCode.DONE
    manifest = read_manifest(workdir)
    assert manifest.trained_tokens == told.tokens <= 4000
    assert manifest.facts["ended_by"] == "budget"
    assert manifest.facts["step"] == told.steps
    report = json.loads((workdir / "output/report.json").read_bytes())
    assert any("The budget ended the training at step" in warning for warning in report["warnings"])

    small = lay_out(tmp_path / "s", tiny_base, jsonl(training_rows()), None, asked, budget={"max_tokens": 5})
    failed = preview(small).failed
    assert failed is not None
    assert (failed.code, failed.param) == ("budget_too_small", "budget.max_tokens")
