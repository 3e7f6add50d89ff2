"""Rankings and reward jobs, for the tests of reward modelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.trainer.recipes.dpo.jobs import job, message, opened
from trainer.contract.result import ADAPTER_FOLDER, ExitCode
from trainer.kit.stop import StopFlag
from trainer.recipes.reward.recipe import RewardRecipe
from trainer.run import run_training_job


def ranking(question: str, responses: list[tuple[str, int]], scores: list[float] | None = None) -> dict[str, Any]:
    """A ranking of (text, rank); `scores` go with the responses in their order."""
    found: list[dict[str, Any]] = [{"message": message("assistant", text), "rank": rank} for text, rank in responses]
    for response, score in zip(found, scores or [], strict=bool(scores)):
        response["score"] = score
    return {"input": {"messages": [message("user", question)]}, "responses": found}


def rankings(count: int = 12) -> list[dict[str, Any]]:
    """Rankings of two to four responses, ties among them: politeness is liked, shortness is not."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        responses = [(f"{number}, gladly.", 1), ("No.", 3), ("No. " * (1 + number % 3) + "Why?", 2), ("Nope.", 3)]
        rows.append(ranking(f"Say {number}.", responses[: 2 + number % 3]))
    rows[1] = ranking("你好吗?", [("不好。", 2), ("我很好, 谢谢!", 1), ("一般", 2)])
    return rows


def trained_reward(folder: Path, base: Path, **hyperparameters: Any) -> Path:
    """Train a small reward model in `folder` and return its adapter's folder."""
    given = {"n_epochs": 2, "batch_size": 3, "learning_rate_multiplier": 5, **hyperparameters}
    job(folder, base, "reward", rankings(12), hyperparameters=given)
    assert run_training_job(folder, StopFlag()) is ExitCode.DONE
    return folder / ADAPTER_FOLDER


def reward_recipe(workdir: Path, base: Path, rows: list[dict[str, Any]], **more: Any) -> RewardRecipe:
    recipe = opened(job(workdir, base, "reward", rows, **more))
    assert isinstance(recipe, RewardRecipe)
    return recipe
