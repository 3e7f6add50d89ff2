"""Proximal policy optimisation with one base in memory: policy, value, reward and reference are its adapters."""

from __future__ import annotations

from trainer.engine.recipe import Recipe
from trainer.kit.job_context import JobContext
from trainer.recipes.ppo.recipe import PpoRecipe


def make_recipe(job: JobContext) -> Recipe:
    """Return what the method does in a run."""
    return PpoRecipe(job)
