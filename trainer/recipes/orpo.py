"""Odds-ratio preference optimisation."""

from __future__ import annotations

from trainer.engine.orpo import OrpoRecipe
from trainer.engine.recipe import JobContext, Recipe


def make_recipe(job: JobContext) -> Recipe:
    """Return what the method does in a run."""
    return OrpoRecipe(job)
