"""Group-relative policy optimisation on PPO's answers, rewards and reference, without a value function."""

from __future__ import annotations

from trainer.engine.recipe import Recipe
from trainer.kit.job_context import JobContext
from trainer.recipes.grpo.recipe import GrpoRecipe


def make_recipe(job: JobContext) -> Recipe:
    """Return what the method does in a run."""
    return GrpoRecipe(job)
