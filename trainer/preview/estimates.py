"""Estimates of memory and speed before a run, from the model's shape: formulas with their sources.

The model is built on torch's `meta` device: every module is there, no weight is.
"""

from __future__ import annotations

from typing import Any

import torch

from trainer.contract.methods.onpolicy import OnPolicyHyperparameters
from trainer.contract.preview import MemoryEstimate, SpeedEstimate
from trainer.engine.models.adapters import add_adapter
from trainer.engine.models.dtype import TOKENS, layer_seconds
from trainer.engine.models.families import empty_model
from trainer.engine.models.load import inner_size, pick_device
from trainer.engine.recipe import Recipe

_BYTES = {"float32": 4, "bfloat16": 2}
# NF4 with double quantization takes 4.127 bits a parameter (Dettmers et al. 2023, section 3).
_NF4_BYTES = 4.127 / 8
# AdamW on float32 weights: the weight, its gradient, two moments.
_TRAINED_BYTES = 16
# Activations a layer keeps for its backward pass, in values a token and unit of width: 34 bytes in 16 bits, attention
# scores left out, which are recomputed (Korthikanti et al. 2022, arXiv 2205.05198, section 4).
_KEPT_VALUES = 17
_RUNTIME_BYTES = {"cpu": 700 << 20, "cuda": 1200 << 20}
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
    """Return the trainer's peak memory: that of the training, or that of the export's check if it is higher."""
    resolved = recipe.resolved
    size, tokens = _BYTES[resolved.dtype], resolved.batch_size * max(recipe.data.row_lengths())
    frozen = model.total - model.trained
    held = {
        "frozen_weights": round(frozen * (_NF4_BYTES if resolved.quantization == "4bit" else size)),
        "trained_weights_and_optimizer": model.trained * _TRAINED_BYTES,
        "runtime": _RUNTIME_BYTES[pick_device().type],
    }
    training = {**held, **_pass_bytes(recipe, model, tokens)}
    again = model.total * (4 if recipe.kind == "model" else size)
    checking = {**held, "second_copy_of_the_weights": again}
    peak, other = (
        (training, "training") if _sum_bytes(training) >= _sum_bytes(checking) else (checking, "the export's check")
    )
    more = " Sampling's cache and a reward model come on top." if _on_policy(recipe) else ""
    return MemoryEstimate(
        bytes=_sum_bytes(peak),
        parts=peak,
        method=(
            f"{frozen:,} frozen parameters in {'4 bits' if resolved.quantization == '4bit' else resolved.dtype}; "
            f"{model.trained:,} trained at 16 bytes (weight, gradient, two moments); in training, the activations of a "
            f"pass of at most {tokens:,} tokens by Korthikanti et al. 2022 (arXiv 2205.05198), "
            f"{'recomputed' if resolved.gradient_checkpointing else 'kept'}, and its logits; in the export's check, "
            f"the weights once more; the libraries. The peak is in {other}. An estimate, not a measurement.{more}"
        ),
    )


def _pass_bytes(recipe: Recipe, model: HollowModel, tokens: int) -> dict[str, int]:
    resolved, shape = recipe.resolved, recipe.data.config.get_text_config()
    width, layers, vocabulary = int(shape.hidden_size), int(shape.num_hidden_layers), int(shape.vocab_size)
    size = _BYTES[resolved.dtype]
    kept = _KEPT_VALUES * width * size
    layer = layers * width * size + kept if resolved.gradient_checkpointing else layers * kept
    adapters = 0 if resolved.gradient_checkpointing else model.adapter_bytes_a_token
    return {"activations": tokens * (layer + adapters), "logits": tokens * vocabulary * (size + 4)}


def _sum_bytes(parts: dict[str, int]) -> int:
    return sum(parts.values())


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
            f"One layer's matrix products, forward and backward, timed just now on the worker that counted "
            f"({seconds * 1000:.1f} ms for {TOKENS} tokens), times {layers} layers and the output layer."
        ),
    )


def _on_policy(recipe: Recipe) -> bool:
    return isinstance(recipe.hyperparameters, OnPolicyHyperparameters)
