"""Sampling responses: batches padded on the left, a key-value cache, a seeded generator, and no logits kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainer.engine.data.batches import batches_within
from trainer.engine.scoring.generation import draw_tokens
from trainer.engine.scoring.head import limit_head_input
from trainer.kit.errors import TrainerError


@dataclass(frozen=True)
class RolloutSampling:
    """How responses are drawn. `stops` are the ids that end one; the stop itself belongs to the response.

    With top_p < 1 the tail of the distribution is never drawn while log-probabilities stay those of the whole
    distribution: the usual approximation of RLHF, exact for top_p = 1 only.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    stops: tuple[int, ...]
    pad_id: int


@dataclass(frozen=True)
class SampledResponse:
    """The tokens that were drawn, and whether the model ended by itself."""

    ids: tuple[int, ...]
    ended: bool


def sample(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    sampling: RolloutSampling,
    seed: int,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    param: str = "learning_rate_multiplier",
) -> list[SampledResponse] | None:
    """Draw one response a prompt, in the prompts' order; None if a stop was asked for on the way.

    The same seed, prompts and weights give the same responses. Raises TrainerError (`policy_collapsed`) if the
    model's logits are not numbers, naming the hyperparameter `param`.
    """
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    found: dict[int, SampledResponse] = {}
    lengths = [len(prompt) + sampling.max_new_tokens for prompt in prompts]
    with torch.no_grad():
        for numbers in batches_within(lengths, device.type):
            if should_stop():
                return None
            try:
                drawn = _sample_batch(model, [prompts[number] for number in numbers], sampling, generator)
            except FloatingPointError as error:
                raise TrainerError(
                    "policy_collapsed",
                    f"The policy collapsed: {error}. Lower learning_rate_multiplier or raise kl_coef; the last "
                    "checkpoint is good.",
                    param=param,
                ) from error
            found.update(zip(numbers, drawn, strict=True))
    return [found[number] for number in range(len(prompts))]


def _sample_batch(
    model: nn.Module, prompts: Sequence[Sequence[int]], sampling: RolloutSampling, generator: torch.Generator
) -> list[SampledResponse]:
    device = generator.device
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[sampling.pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts]).to(device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]).to(device)
    stops = torch.tensor(sampling.stops, device=device, dtype=torch.long)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    lengths = torch.zeros(len(prompts), dtype=torch.long, device=device)
    drawn: list[torch.Tensor] = []
    cache: Any = None
    for _ in range(sampling.max_new_tokens):
        logits, cache = _next_logits(model, ids, mask, positions, cache)
        tokens = draw_tokens(logits, sampling.temperature, sampling.top_p, generator)
        lengths += ~ended
        drawn.append(tokens)
        ended |= torch.isin(tokens, stops)
        if bool(ended.all()):
            break
        ids, positions = tokens[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(ids)], 1)
    table = torch.stack(drawn, 1).tolist()
    return [
        SampledResponse(tuple(row[:length]), end)
        for row, length, end in zip(table, lengths.tolist(), ended.tolist(), strict=True)
    ]


def _next_logits(
    model: nn.Module, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any
) -> tuple[torch.Tensor, Any]:
    """Return the last position's logits [rows, vocabulary] and the grown cache."""
    with limit_head_input(model, lambda hidden: hidden[:, -1:]):
        outputs = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
    logits = outputs.logits[:, -1].float()
    if not bool(torch.isfinite(logits).all()):
        raise FloatingPointError("its outputs are not finite numbers any more")
    return logits, outputs.past_key_values
