"""What one method alone does, one module a method by the method's name on the wire."""

from __future__ import annotations

from importlib import import_module

from trainer.engine.recipe import Recipe
from trainer.kit.job_context import JobContext


def recipe_for(job: JobContext) -> Recipe:
    """Return what the job's method does in a run: its module's `make_recipe`, which nothing else loads."""
    recipe: Recipe = import_module(f"{__name__}.{job.spec.method.type}").make_recipe(job)
    return recipe
