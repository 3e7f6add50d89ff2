"""Kahneman-Tversky optimisation."""

from __future__ import annotations

from trainer.engine.recipe import Recipe
from trainer.kit.job_context import JobContext
from trainer.recipes.kto.recipe import KtoRecipe


def make_recipe(job: JobContext) -> Recipe:
    """Return what the method does in a run."""
    return KtoRecipe(job)
