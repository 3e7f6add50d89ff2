"""Kahneman-Tversky optimisation."""

from __future__ import annotations

from trainer.engine.kto import KtoRecipe
from trainer.engine.recipe import JobContext, Recipe


def make_recipe(job: JobContext) -> Recipe:
    """Return what the method does in a run."""
    return KtoRecipe(job)
