from __future__ import annotations

import pkgutil
from importlib import import_module

import trainer.recipes
from trainer.contract.methods import METHODS


def test_each_method_has_one_module_with_its_recipe() -> None:
    modules = [module.name for module in pkgutil.iter_modules(trainer.recipes.__path__)]
    assert sorted(modules) == sorted(method.model_fields["type"].default for method in METHODS)
    assert all(callable(import_module(f"trainer.recipes.{name}").make_recipe) for name in modules)
