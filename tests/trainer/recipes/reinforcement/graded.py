"""Jobs against graders, and their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.trainer.workdirs import jsonl, lay_out

CHECK: dict[str, Any] = {
    "type": "string_check",
    "name": "has it",
    "operation": "ilike",
    "input": "{{sample.output_text}}",
    "reference": "{{item.letter}}",
}
SIMILAR: dict[str, Any] = {
    "type": "text_similarity",
    "name": "near",
    "evaluation_metric": "fuzzy_match",
    "input": "{{sample.output_text}}",
    "reference": "{{item.答案}}",
}
SOURCE = "def grade(sample, item):\n    return float(len(set(sample['output_text']) & set(item['答案'])))\n"
PYTHON: dict[str, Any] = {"type": "python", "name": "py", "source": SOURCE}
BOTH: dict[str, Any] = {
    "type": "multi",
    "name": "both",
    "graders": {"near": SIMILAR, "has": CHECK},
    "calculate_output": "near + 0.5 * has",
}
SCORE: dict[str, Any] = {
    "type": "score_model",
    "name": "judge",
    "model": "tiny-base",
    "input": [{"role": "user", "content": "给这个回答打分: {{sample.output_text}}"}],
    "sampling_params": {"max_completions_tokens": 4},
}
GIVEN: dict[str, Any] = {
    "dtype": "float32",
    "lora": {"rank": 4},
    "batch_size": 3,
    "group_size": 4,
    "grpo_epochs": 2,
    "minibatches": 2,
    "iterations": 2,
    "max_new_tokens": 6,
    "eval_interval": 1,
    "checkpoint_steps": 1,
    "learning_rate_multiplier": 5,
}


def item(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "letter": "e", "答案": "巴黎 abc", **more}


ROWS = [item("法国的首都是哪里?"), *(item(f"Say {n}" + "!" * n, line=n) for n in range(7))]


def lay(workdir: Path, base: Path, grader: dict[str, Any] = BOTH, **more: Any) -> Path:
    names = ("resume", "start", "python_graders", "sample_count")
    spec = {"sample_count": 1} | {name: more.pop(name) for name in names if name in more}
    rows, held_out = more.pop("rows", ROWS), more.pop("held_out", ROWS[:3])
    block = {"grader": grader, "hyperparameters": {**GIVEN, **more}}
    method = {"type": "reinforcement", "reinforcement": block}
    return lay_out(workdir, base, jsonl(rows), jsonl(held_out), method=method, **spec)
