"""Choosing the number format by a short measurement: bfloat16 is faster with AMX or AVX-512 BF16, slower elsewhere."""

from __future__ import annotations

import time

import torch
from pydantic import Field, TypeAdapter
from torch import nn
from transformers import PreTrainedConfig

from trainer.engine.models.load import DTYPES, hidden_size, inner_size, pick_device
from trainer.frozen import Frozen

TOKENS = 256
REPEATS = 3
RANK = 16


_KnownTimes = dict[tuple[int, int, str], float]
_TIMES: TypeAdapter[list[tuple[tuple[int, int, str], float]]] = TypeAdapter(list[tuple[tuple[int, int, str], float]])
_known_times: _KnownTimes = {}
"""What this process has measured, or its parent before it: the time of a layer by its two widths and the format."""


class DtypeChoice(Frozen):
    """The format used and why; `seconds` has the best time of each measured format, empty if none was needed."""

    dtype: str
    reason: str
    seconds: dict[str, float] = Field(default_factory=dict)


class _Layer(nn.Module):
    """One decoder layer's matrix products, frozen, each with a float32 LoRA branch as PEFT computes it."""

    def __init__(self, hidden: int, intermediate: int, dtype: torch.dtype) -> None:
        super().__init__()
        shapes = [(hidden, hidden)] * 2 + [(hidden, intermediate)] * 2 + [(intermediate, hidden)]
        self.frozen = nn.ModuleList(nn.Linear(i, o, bias=False, dtype=dtype) for i, o in shapes).requires_grad_(False)
        self.down = nn.ModuleList(nn.Linear(i, RANK, bias=False) for i, _ in shapes)
        self.up = nn.ModuleList(nn.Linear(RANK, o, bias=False) for _, o in shapes)

    def _apply_linear(self, index: int, x: torch.Tensor) -> torch.Tensor:
        result = self.frozen[index](x)
        return (result + self.up[index](self.down[index](x.float()))).to(x.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [tokens, hidden] to the same shape."""
        x = x + self._apply_linear(1, self._apply_linear(0, nn.functional.rms_norm(x, x.shape[-1:])))
        normed = nn.functional.rms_norm(x, x.shape[-1:])
        return x + self._apply_linear(
            4, nn.functional.silu(self._apply_linear(2, normed)) * self._apply_linear(3, normed)
        )


def choose_dtype(asked: str, config: PreTrainedConfig) -> DtypeChoice:
    """Return the format that was asked for, or for `auto` the one that this machine computes faster."""
    if asked != "auto":
        return DtypeChoice(dtype=asked, reason="as asked")
    if pick_device().type == "cuda":
        fits = torch.cuda.is_bf16_supported()
        return DtypeChoice(dtype="bfloat16" if fits else "float32", reason="what the GPU supports")
    seconds = {name: layer_seconds(config, name) for name in DTYPES}
    best = min(seconds, key=lambda name: seconds[name])
    reason = f"fastest of {', '.join(seconds)} for one layer, forward and backward, on {TOKENS} tokens"
    return DtypeChoice(dtype=best, reason=reason, seconds=seconds)


def layer_seconds(config: PreTrainedConfig, name: str) -> float:
    """Return how long one layer takes for `TOKENS` tokens, forward and backward: the best of a few, after a warm-up.

    A process measures each shape once.
    """
    hidden, intermediate = hidden_size(config), inner_size(config)
    key = hidden, intermediate, name
    if key not in _known_times:
        _known_times[key] = _measure_layer(hidden, intermediate, DTYPES[name])
    return _known_times[key]


def dump_times() -> bytes:
    """Return what was measured, for a process that answers many times and measures in forks."""
    return _TIMES.dump_json(list(_known_times.items()))


def remember_times(times: bytes) -> None:
    """Take over what a fork measured. Raises ValueError if it is not what `dump_times` returns."""
    _known_times.update(_TIMES.validate_json(times))


def _measure_layer(hidden: int, intermediate: int, dtype: torch.dtype) -> float:
    # Measuring must not move the generator that the training draws from.
    with torch.random.fork_rng(devices=[]):
        layer = _Layer(hidden, intermediate, dtype)
        x = torch.randn(TOKENS, hidden, dtype=dtype, requires_grad=True)
    times: list[float] = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        layer(x).float().pow(2).mean().backward()
        times.append(time.perf_counter() - start)
    # The least: whatever else the machine does can only make a layer slower.
    return min(times[1:])
