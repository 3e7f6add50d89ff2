"""The trainer's peak memory, from numbers alone: the one formula for previews, cards of base models and orders."""

from __future__ import annotations

from typing import Literal

from trainer.contract.methods.base import CommonHyperparameters, Kinds, LoraParameters
from trainer.contract.preview import MemoryEstimate
from trainer.frozen import Frozen

_BYTES = {"float32": 4, "bfloat16": 2}
# NF4 with double quantization takes 4.127 bits a parameter (Dettmers et al. 2023, section 3).
_NF4_BYTES = 4.127 / 8
# AdamW on float32 weights: the weight, its gradient, two moments.
_TRAINED_BYTES = 16
# Activations a layer keeps for its backward pass, in values a token and unit of width: 34 bytes in 16 bits, attention
# scores left out, which are recomputed (Korthikanti et al. 2022, arXiv 2205.05198, section 4).
_KEPT_VALUES = 17
_RUNTIME_BYTES = {"cpu": 700 << 20, "cuda": 1200 << 20}
SAMPLING_NOTE = " Sampling's cache and a reward model come on top."


class ModelShape(Frozen):
    """The numbers of a base model that its memory depends on. Adapters are meant on all its linear targets."""

    parameters: int
    width: int
    layers: int
    vocabulary: int
    adapter_features: int
    """Inputs and outputs of all targets together: an adapter of rank 1 has as many parameters."""
    adapter_inputs: int
    """The inputs alone."""


class MemoryPlan(Frozen):
    """One way to train a model, as far as memory goes. `tokens` are the most of one pass."""

    kind: Kinds
    dtype: str
    quantization: str
    gradient_checkpointing: bool
    device: Literal["cpu", "cuda"]
    tokens: int
    parameters: int
    trained: int
    width: int
    layers: int
    vocabulary: int
    adapter_bytes_a_token: int
    """What the adapters keep of a token: each one's input, in float32, for the gradient of its matrix A."""

    @classmethod
    def on_gpu(cls, shape: ModelShape, hyperparameters: CommonHyperparameters, *, tokens: int) -> MemoryPlan:
        """Return the plan of a training on a GPU, every `auto` as a GPU has it."""
        lora = hyperparameters.lora if isinstance(hyperparameters.lora, LoraParameters) else LoraParameters()
        adapter = lora.rank * shape.adapter_features
        kind = hyperparameters.result_kind
        return cls(
            kind=kind,
            dtype="bfloat16" if hyperparameters.dtype == "auto" else hyperparameters.dtype,
            quantization=hyperparameters.quantization,
            gradient_checkpointing=hyperparameters.gradient_checkpointing in ("auto", True),
            device="cuda",
            tokens=tokens,
            parameters=shape.parameters if kind == "model" else shape.parameters + adapter,
            trained=shape.parameters if kind == "model" else adapter,
            width=shape.width,
            layers=shape.layers,
            vocabulary=shape.vocabulary,
            adapter_bytes_a_token=4 * shape.adapter_inputs,
        )


def estimate_peak_memory(plan: MemoryPlan, *, more: str = "") -> MemoryEstimate:
    """Return the trainer's peak memory: that of the training, or that of the export's check if it is higher.

    `more` ends the sentence that says how it was estimated.
    """
    size = _BYTES[plan.dtype]
    frozen = plan.parameters - plan.trained
    always = {
        "frozen_weights": round(frozen * (_NF4_BYTES if plan.quantization == "4bit" else size)),
        "trained_weights_and_optimizer": plan.trained * _TRAINED_BYTES,
        "runtime": _RUNTIME_BYTES[plan.device],
    }
    training = {**always, **_pass_bytes(plan, size)}
    again = plan.parameters * (4 if plan.kind == "model" else size)
    checking = {**always, "second_copy_of_the_weights": again}
    peak, phase = (
        (training, "training") if _sum_bytes(training) >= _sum_bytes(checking) else (checking, "the export's check")
    )
    return MemoryEstimate(
        bytes=_sum_bytes(peak),
        parts=peak,
        method=(
            f"{frozen:,} frozen parameters in {'4 bits' if plan.quantization == '4bit' else plan.dtype}; "
            f"{plan.trained:,} trained at 16 bytes (weight, gradient, two moments); in training, the activations of a "
            f"pass of at most {plan.tokens:,} tokens by Korthikanti et al. 2022 (arXiv 2205.05198), "
            f"{'recomputed' if plan.gradient_checkpointing else 'kept'}, and its logits; in the export's check, "
            f"the weights once more; the libraries. The peak is in {phase}. An estimate, not a measurement.{more}"
        ),
    )


def _pass_bytes(plan: MemoryPlan, size: int) -> dict[str, int]:
    a_layer = _KEPT_VALUES * plan.width * size
    layer = plan.layers * plan.width * size + a_layer if plan.gradient_checkpointing else plan.layers * a_layer
    adapters = 0 if plan.gradient_checkpointing else plan.adapter_bytes_a_token
    return {"activations": plan.tokens * (layer + adapters), "logits": plan.tokens * plan.vocabulary * (size + 4)}


def _sum_bytes(parts: dict[str, int]) -> int:
    return sum(parts.values())
