"""What is known of a base model's family: where adapters go, how it samples, and what it can be trained by.

Pydantic only, as the service reads it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.frozen import Frozen

CacheKind = Literal["keys", "state", "none"]
"""What a family keeps of the tokens before: keys and values, a recurrent state (with keys or without), or nothing."""


class LayerGroup(Frozen):
    """Matrices of one name in several layers, such as `model.layers.*.self_attn.q_proj`."""

    name: str
    count: int
    parameters: int
    """Of all of them together, without an adapter's."""
    reason: str = ""
    """Why they get no adapter; empty if they get one."""


class AdapterTargets(Frozen):
    """Which matrices of a model get an adapter, and which do not, both grouped over the layers."""

    adapted: tuple[LayerGroup, ...]
    left_out: tuple[LayerGroup, ...]

    @property
    def experts_left_out(self) -> bool:
        """Whether the experts' matrices, which hold most of such a model's weights, are among those left out."""
        return any("experts" in group.reason for group in self.left_out)


class MethodFit(Frozen):
    """Whether a training method works with a base; `reason` is a sentence, empty if it works."""

    works: bool
    reason: str = ""


class FamilyCard(Frozen):
    """A base model's family, as its configuration has it; no weight is read for it."""

    family: str
    """transformers' `model_type`."""
    known: bool
    """Whether the family is in the table; False if its layers were found by inspection."""
    model_class: str
    """The class of transformers that is loaded; empty if there is none."""
    parameters: int
    """Counted from the configuration; `count_weights` reads what the files have."""
    context_length: int
    targets: AdapterTargets
    """Of an adapter on `all-linear`, without experts."""
    linear: tuple[str, ...] = ()
    """The names of the layers that `all-linear` adapts."""
    routers: tuple[str, ...] = ()
    experts: tuple[str, ...] = ()
    """The stacked matrices of experts, which `lora.experts` adapts."""
    cache: CacheKind = "keys"
    sliding_window: int | None = None
    reads_images: bool = False
    """Whether the model has parts for images, sound or video, which training on text leaves as they are."""
    score_head: Literal["transformers", "burnish"] = "transformers"
    """Whose class a reward model has: transformers' own for sequence classification, or one made on the backbone."""
    methods: dict[str, MethodFit] = Field(default_factory=dict[str, MethodFit])
    notes: tuple[str, ...] = ()
    """Sentences for people, such as that the family was found by inspection."""
