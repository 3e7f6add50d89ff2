"""Reward modelling."""

from __future__ import annotations

from trainer.engine.recipe import JobContext, Recipe
from trainer.engine.reward import RewardRecipe


def make_recipe(job: JobContext) -> Recipe:
    """Return what the method does in a run."""
    return RewardRecipe(job)
