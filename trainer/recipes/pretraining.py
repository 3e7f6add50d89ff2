"""Pre-training."""

from __future__ import annotations

from trainer.engine.pretraining.full import FullPretrainingRecipe
from trainer.engine.pretraining.recipe import PretrainingRecipe
from trainer.engine.recipe import JobContext, Recipe
from trainer.methods.pretraining import PretrainingMethod


def make_recipe(job: JobContext) -> Recipe:
    """Return what the method does in a run: with all weights, or with an adapter."""
    method = job.spec.method
    assert isinstance(method, PretrainingMethod)
    return FullPretrainingRecipe(job) if method.hyperparameters.full else PretrainingRecipe(job)
