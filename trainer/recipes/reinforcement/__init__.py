"""Reinforcement fine-tuning."""

from __future__ import annotations

from trainer.engine.recipe import Recipe
from trainer.kit.job_context import JobContext
from trainer.recipes.reinforcement.recipe import ReinforcementRecipe


def make_recipe(job: JobContext) -> Recipe:
    """Return what the method does in a run."""
    return ReinforcementRecipe(job)
