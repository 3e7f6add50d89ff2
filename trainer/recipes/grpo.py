"""Group-relative policy optimisation."""

from __future__ import annotations

from trainer.engine.grpo.recipe import GrpoRecipe
from trainer.engine.recipe import JobContext, Recipe


def make_recipe(job: JobContext) -> Recipe:
    """Return what the method does in a run."""
    return GrpoRecipe(job)
