"""Rows and hyperparameters that make two steps of each method."""

from __future__ import annotations

from typing import Any

from tests.trainer.recipes.dpo.jobs import preferences
from tests.trainer.recipes.kto.jobs import answers
from tests.trainer.recipes.reward.jobs import rankings
from tests.trainer.workdirs import training_rows

Sample = tuple[list[dict[str, Any]], dict[str, Any]]
PROMPTS = [
    {"input": {"messages": [{"role": "user", "content": text}]}} for text in ("天气怎么样?", "Say 1.", "Say 2!", "Why?")
]
SAMPLED: dict[str, Any] = {
    "reward": {"function": "length", "parameters": {"target": 3}},
    "iterations": 2,
    "rollout_prompts": 2,
    "max_new_tokens": 4,
}
GRADER = {
    "type": "text_similarity",
    "name": "near",
    "evaluation_metric": "fuzzy_match",
    "input": "{{sample.output_text}}",
    "reference": "{{item.答案}}",
}
ITEMS = [{**row["input"], "答案": "the 1st of 10 [晴]"} for row in PROMPTS]
# What stands in a method's block beside the hyperparameters.
BESIDE: dict[str, dict[str, Any]] = {"reinforcement": {"grader": GRADER}}
# Of each method: rows, and what makes them two steps. A new method must add its own.
SAMPLES: dict[str, Sample] = {
    "pretraining": (
        [{"text": f"第{n}行 says nothing new. " * 9} for n in range(4)],
        {"max_length": 64, "max_steps": 2},
    ),
    "supervised": (training_rows(4), {}),
    "reward": (rankings(4), {}),
    "dpo": (preferences(4), {}),
    "orpo": (preferences(4), {}),
    "kto": (answers(4)[:4], {}),
    "ppo": (PROMPTS, SAMPLED),
    "grpo": (PROMPTS, {**SAMPLED, "group_size": 2}),
    "reinforcement": (ITEMS, {"iterations": 2, "max_new_tokens": 4, "group_size": 2, "learning_rate_multiplier": 5.0}),
}
COMMON: dict[str, Any] = {"n_epochs": 1, "batch_size": 2, "dtype": "float32", "lora": {"rank": 2}}
