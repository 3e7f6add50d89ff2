"""One entry for each family of transformers' causal language models."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.contract.family import CacheKind


@dataclass(frozen=True)
class Family:
    """What a family needs. `linear` are the last names of the layers that take an adapter.

    `routers` and `left_out` are ends and parts of names that never do: those that choose experts, and those whose
    weights the family reads without calling the layer. `refused` is why models of the family are not trained.
    """

    linear: tuple[str, ...] = ()
    routers: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    experts: tuple[str, ...] = ()
    cache: CacheKind = "keys"
    refused: str = ""


FAMILIES: dict[str, Family] = {}
