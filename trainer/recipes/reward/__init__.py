"""Reward modelling: an adapter with a score head, learnt from rankings of any length."""

from __future__ import annotations

from trainer.engine.recipe import Recipe
from trainer.kit.job_context import JobContext
from trainer.recipes.reward.recipe import RewardRecipe


def make_recipe(job: JobContext) -> Recipe:
    """Return what the method does in a run."""
    return RewardRecipe(job)
