"""Reward modelling: an adapter with a score head, learnt from rankings of any length."""

from __future__ import annotations

from trainer.engine.reward.recipe import RewardRecipe

__all__ = ["RewardRecipe"]
