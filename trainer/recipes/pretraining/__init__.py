"""Pre-training on plain text: windows without padding, new models and their tokenizers, full weights."""

from __future__ import annotations

from trainer.contract.methods.pretraining import PretrainingMethod
from trainer.engine.recipe import Recipe
from trainer.kit.job_context import JobContext
from trainer.recipes.pretraining.full import FullPretrainingRecipe
from trainer.recipes.pretraining.recipe import PretrainingRecipe


def make_recipe(job: JobContext) -> Recipe:
    """Return what the method does in a run: with all weights, or with an adapter."""
    method = job.spec.method
    assert isinstance(method, PretrainingMethod)
    return FullPretrainingRecipe(job) if method.hyperparameters.full else PretrainingRecipe(job)
