"""Estimates of memory and speed before a run, from the model's shape: formulas with their sources.

The model is built on torch's `meta` device: every module is there, no weight is.
"""

from __future__ import annotations

from typing import Any

import torch

from trainer.contract.memory import SAMPLING_NOTE, MemoryPlan, estimate_peak_memory
from trainer.contract.methods.onpolicy import OnPolicyHyperparameters
from trainer.contract.preview import MemoryEstimate, SpeedEstimate
from trainer.engine.models.adapters import add_adapter
from trainer.engine.models.dtype import TOKENS, layer_seconds
from trainer.engine.models.families import empty_model
from trainer.engine.models.load import inner_size, pick_device
from trainer.engine.recipe import Recipe

_ASSUMED_GPU_FLOPS = 50e12


class HollowModel:
    """The model's shape: its parameters, those trained, and what its adapters keep for a token."""

    def __init__(self, model: Any) -> None:
        self.total = sum(parameter.numel() for parameter in model.parameters())
        self.trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        adapted = [module for module in model.modules() if hasattr(module, "lora_A")]
        # Each adapter's input is kept in float32 for the gradient of its matrix A.
        self.adapter_bytes_a_token = sum(4 * int(module.in_features) for module in adapted)


def hollow_model(recipe: Recipe) -> HollowModel:
    """Return the shape of the model that a settled recipe would train."""
    model = empty_model(recipe.data.config)
    if recipe.kind == "model":
        return HollowModel(model)
    with torch.device("meta"):
        return HollowModel(add_adapter(model, recipe.resolved))


def estimate_memory(recipe: Recipe, model: HollowModel) -> MemoryEstimate:
    """Return the trainer's peak memory for a settled recipe."""
    resolved, shape = recipe.resolved, recipe.data.config.get_text_config()
    plan = MemoryPlan(
        kind=recipe.kind,
        dtype=resolved.dtype,
        quantization=resolved.quantization,
        gradient_checkpointing=resolved.gradient_checkpointing,
        device="cuda" if pick_device().type == "cuda" else "cpu",
        tokens=resolved.batch_size * max(recipe.data.row_lengths()),
        parameters=model.total,
        trained=model.trained,
        width=int(shape.hidden_size),
        layers=int(shape.num_hidden_layers),
        vocabulary=int(shape.vocab_size),
        adapter_bytes_a_token=model.adapter_bytes_a_token,
    )
    return estimate_peak_memory(plan, more=SAMPLING_NOTE if _on_policy(recipe) else "")


def estimate_speed(recipe: Recipe, model: HollowModel) -> SpeedEstimate:
    """Return tokens a second: on a CPU from one layer, timed now, on a GPU from an assumed rate of operations."""
    if _on_policy(recipe):
        return SpeedEstimate(tokens_per_second=None, method="How long the model takes to write answers is not known.")
    resolved = recipe.resolved
    if pick_device().type == "cpu":
        return _time_layer(recipe)
    # 2 operations a parameter forward, 2 for the activations' gradients, 2 for the weights' if these are trained
    # (Kaplan et al. 2020, arXiv 2001.08361), and a second forward pass if activations are recomputed.
    each = (6 if recipe.kind == "model" else 4) + (2 if resolved.gradient_checkpointing else 0)
    return SpeedEstimate(
        tokens_per_second=_ASSUMED_GPU_FLOPS / (each * model.total),
        method=(
            f"{each} operations a token and parameter (Kaplan et al. 2020, arXiv 2001.08361), {model.total:,} "
            f"parameters, on a GPU assumed to carry out {_ASSUMED_GPU_FLOPS / 1e12:.0f} · 10¹² operations a second."
        ),
    )


def _time_layer(recipe: Recipe) -> SpeedEstimate:
    shape = recipe.data.config.get_text_config()
    seconds = recipe.dtype.seconds.get(recipe.dtype.dtype) or layer_seconds(recipe.data.config, recipe.dtype.dtype)
    width, layers = int(shape.hidden_size), int(shape.num_hidden_layers)
    inner = inner_size(recipe.data.config)
    # The output layer's matrix as a share of a layer's: 4 squares of the width and 3 products with the inner one.
    head = int(shape.vocab_size) / (4 * width + 3 * inner)
    return SpeedEstimate(
        tokens_per_second=TOKENS / (seconds * (layers + head)),
        method=(
            f"One layer's matrix products, forward and backward, timed on the worker that counted "
            f"({seconds * 1000:.1f} ms for {TOKENS} tokens), times {layers} layers and the output layer."
        ),
    )


def _on_policy(recipe: Recipe) -> bool:
    return isinstance(recipe.hyperparameters, OnPolicyHyperparameters)
