"""Resolving `auto`: pure functions from what is known about rows, model and device to plain numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trainer.contract.methods.base import CommonHyperparameters, LoraParameters, Resolved

MAX_AUTO_LENGTH = 2048
MAX_AUTO_LEARNING_RATE = 1e-3
# How many tokens (padding included) one forward and backward pass may hold if the batch size is `auto`.
TOKENS_A_PASS = {"cpu": 4096, "cuda": 16384}


@dataclass(frozen=True)
class Workload:
    """What `auto` depends on: `lengths` are the rows' tokens after cutting, `hidden_size` is the model's width."""

    lengths: tuple[int, ...]
    hidden_size: int
    device: Literal["cpu", "cuda"]
    dtype: str
    max_length: int


def resolve_max_length(hyperparameters: CommonHyperparameters, longest: int, context: int) -> int:
    """Return the row limit in tokens: as asked but at most the model's context; `auto` fits the longest row.

    `auto` rounds the longest row up to a multiple of 64 and stops at 2048.
    """
    if hyperparameters.max_length != "auto":
        return min(hyperparameters.max_length, context)
    return min(context, MAX_AUTO_LENGTH, max(64, math.ceil(longest / 64) * 64))


def base_learning_rate(hidden_size: int) -> float:
    """Return LoRA's learning rate for a model of this width, in front of the multiplier.

    lr = 5e-5 · 10 · (2000 / hidden)^0.781, the fit of "LoRA Without Regret" (Schulman et al., 2025) for Llama
    models, at most 1e-3 because the fit covers no model below a billion parameters.
    """
    return min(MAX_AUTO_LEARNING_RATE, 5e-4 * (2000 / hidden_size) ** 0.781)


def auto_epochs(rows: int) -> int:
    """Return the passes over the data: small sets need repetition to be learnt, large ones would be overfitted."""
    if rows < 60:
        return 5
    if rows <= 500:
        return 3
    return 2 if rows <= 5000 else 1


def auto_rows_an_update(rows: int) -> int:
    """Return about a thirtieth of the rows, as a power of two from 1 to 32: some thirty updates an epoch."""
    return 2 ** max(0, min(5, (rows // 30).bit_length() - 1)) if rows >= 60 else max(1, min(2, rows // 4))


def resolve_auto(
    hyperparameters: CommonHyperparameters, workload: Workload, seed: int, *, lora: LoraParameters | None = None
) -> Resolved:
    """Turn every `auto` into a number, with an adapter of the shape `lora` or the default.

    Raises ValueError if there are no rows.

    `batch_size` is the rows of one forward and backward pass; an update takes
    `batch_size · gradient_accumulation_steps` rows. If both are `auto`, accumulation makes up for rows that are
    too long for a pass. Without a batch size or accumulation of the user's, an update has `auto_rows_an_update`.
    """
    rows = len(workload.lengths)
    if not rows:
        raise ValueError("there are no rows to resolve the hyperparameters for")
    epochs = auto_epochs(rows) if hyperparameters.n_epochs == "auto" else hyperparameters.n_epochs
    batch, accumulation = _resolve_batch(hyperparameters, workload)
    updates_an_epoch = math.ceil(math.ceil(rows / batch) / accumulation)
    total = updates_an_epoch * epochs
    multiplier = hyperparameters.learning_rate_multiplier
    multiplier = 1.0 if multiplier == "auto" else multiplier
    fifth = max(1, math.ceil(total / 5))
    evaluate, checkpoint = hyperparameters.steps_between_evaluations, hyperparameters.checkpoint_steps
    recompute = hyperparameters.gradient_checkpointing
    return Resolved(
        n_epochs=epochs,
        batch_size=batch,
        learning_rate_multiplier=multiplier,
        learning_rate=base_learning_rate(workload.hidden_size) * hyperparameters.learning_rate_scale * multiplier,
        warmup_ratio=hyperparameters.warmup_ratio,
        warmup_steps=math.ceil(total * hyperparameters.warmup_ratio),
        gradient_accumulation_steps=accumulation,
        max_length=workload.max_length,
        lr_scheduler=hyperparameters.lr_scheduler,
        weight_decay=hyperparameters.weight_decay,
        max_grad_norm=hyperparameters.max_grad_norm,
        eval_steps=fifth if evaluate == "auto" else evaluate,
        checkpoint_steps=min(100, fifth) if checkpoint == "auto" else checkpoint,
        total_steps=total,
        dtype=workload.dtype,
        lora=lora or LoraParameters(),
        quantization=hyperparameters.quantization,
        gradient_checkpointing=workload.device == "cuda" if recompute == "auto" else recompute,
        early_stopping_patience=hyperparameters.early_stopping_patience,
        result=hyperparameters.result,
        seed=seed,
        settings=hyperparameters.settings(),
    )


def with_steps(resolved: Resolved, requested: CommonHyperparameters, total: int) -> Resolved:
    """Return the numbers for another count of steps; what is relative to the whole run follows."""
    an_epoch = max(1, resolved.total_steps // resolved.n_epochs)
    fifth = max(1, math.ceil(total / 5))
    settings, evaluate = resolved.settings, requested.steps_between_evaluations
    return resolved.model_copy(
        update={
            "total_steps": total,
            "n_epochs": math.ceil(total / an_epoch),
            "warmup_steps": math.ceil(total * requested.warmup_ratio),
            "eval_steps": fifth if evaluate == "auto" else evaluate,
            "checkpoint_steps": min(100, fifth) if requested.checkpoint_steps == "auto" else requested.checkpoint_steps,
            "settings": {**settings, "iterations": total} if "iterations" in settings else settings,
        }
    )


def learning_rate_factor(kind: str, step: int, *, warmup: int, total: int) -> float:
    """Return what the learning rate is multiplied by at a step, counted from 0.

    Warm-up rises linearly and is above zero from the first step on; the fall over the other steps ends above zero.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    fraction = (step - warmup) / max(1, total - warmup)
    if kind == "constant":
        return 1.0
    return max(0.0, 1 - fraction) if kind == "linear" else 0.5 * (1 + math.cos(math.pi * min(1.0, fraction)))


def rows_a_pass(device: str, longest: int) -> int:
    """Return how many rows of at most `longest` tokens go through the model at once."""
    return max(1, TOKENS_A_PASS[device] // longest)


def _resolve_batch(hyperparameters: CommonHyperparameters, workload: Workload) -> tuple[int, int]:
    rows = len(workload.lengths)
    accumulation = hyperparameters.gradient_accumulation_steps
    if hyperparameters.batch_size != "auto":
        batch = min(hyperparameters.batch_size, rows)
        return batch, 1 if accumulation == "auto" else accumulation
    fitting = rows_a_pass(workload.device, max(workload.lengths))
    if accumulation != "auto":
        return min(fitting, max(1, auto_rows_an_update(rows) // accumulation)), accumulation
    batch = min(fitting, auto_rows_an_update(rows))
    return batch, math.ceil(auto_rows_an_update(rows) / batch)
