"""Drawing answers: the step that every answer is drawn by, and the loop over a batch.

A step is `next_scores`, with a cache of keys and values, and a choice of a token, such as `draw_tokens`. There are two
loops around it. `draw_batch` draws many answers to their ends: rollouts, graders' replies and the report's samples.
`trainer.chat.decode` draws one answer and hands out each token as it comes, because somebody reads along: it reads a
prompt once for several answers, its choice depends on the tokens before, and between two tokens it may let go of the
model while another base takes its place in memory. A batch has no such moment, and a generator of single tokens would
cost rollouts their batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainer.engine.data.batches import collate_sequences
from trainer.engine.models.families import cache_kind
from trainer.engine.scoring.head import limit_head_input
from trainer.kit.errors import TrainerError

TokenChoice = Callable[[torch.Tensor], torch.Tensor]
"""From scores [rows, vocabulary] to tokens [rows]."""


@dataclass(frozen=True)
class SampledResponse:
    """The tokens that were drawn, and whether the model ended by itself: then the last one is the stop."""

    ids: tuple[int, ...]
    ended: bool


@dataclass
class SeenTokens:
    """In the place of a cache, for a family that keeps none: the rows' tokens, which are read anew at each step."""

    rows: list[list[int]]


def next_scores(
    model: Any,
    ids: torch.Tensor,
    cache: Any,
    *,
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Any]:
    """Return the scores [rows, vocabulary] of the token behind `ids` [rows, tokens], and the cache, grown in place.

    Mask and positions are given if rows are padded, on the left. Raises FloatingPointError if a score is not a finite
    number.
    """
    places = {"attention_mask": attention_mask, "position_ids": position_ids}
    padding = {name: values for name, values in places.items() if values is not None}
    match cache_kind(model.config):
        case "keys":
            with limit_head_input(model, lambda hidden: hidden[:, -1:]):
                outputs = model(input_ids=ids, past_key_values=cache, use_cache=True, **padding)
            logits, cache = outputs.logits, outputs.past_key_values
        case "state":
            # A state has no positions, only an order.
            padding.pop("position_ids", None)
            with limit_head_input(model, lambda hidden: hidden[:, -1:]):
                outputs = model(input_ids=ids, cache_params=cache, use_cache=True, **padding)
            logits, cache = outputs.logits, outputs.cache_params
        case "none":
            cache = _remember_tokens(cache, ids, attention_mask)
            logits = _read_anew(model, cache.rows)
    scores = logits[:, -1].float()
    # NaN would pass for an answer: argmax takes the first one, and on a GPU multinomial fails in a later call.
    if not bool(torch.isfinite(scores).all()):
        raise FloatingPointError("its outputs are not finite numbers")
    return scores, cache


def _remember_tokens(cache: SeenTokens | None, ids: torch.Tensor, mask: torch.Tensor | None) -> SeenTokens:
    if cache is None:
        real = torch.ones_like(ids) if mask is None else mask
        return SeenTokens([row[keep.bool()].tolist() for row, keep in zip(ids, real, strict=True)])
    for row, new in zip(cache.rows, ids.tolist(), strict=True):
        row += new
    return cache


def _read_anew(model: Any, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the logits [rows, 1, vocabulary] behind whole rows."""
    # Padded on the right, where no causal model looks: some families take no mask, and a state would begin in padding.
    batch = {name: values.to(model.device) for name, values in collate_sequences(rows, 0).items()}
    last = batch["attention_mask"].sum(1) - 1
    with limit_head_input(model, lambda hidden: hidden[torch.arange(len(rows), device=last.device), last][:, None]):
        return model(**batch, use_cache=False).logits


def draw_tokens(logits: torch.Tensor, temperature: float, top_p: float, generator: torch.Generator) -> torch.Tensor:
    """Draw a token [...] from softmax(logits [..., vocabulary] / temperature), cut to its nucleus."""
    probabilities = cut_to_nucleus((logits / temperature).softmax(-1), top_p)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


def cut_to_nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return the probabilities with 0 for the tail (Holtzman et al. 2020, arXiv 1904.09751); they need not sum to 1.

    A token stays while those before it have not reached `top_p`: the most likely one always does.
    """
    if top_p >= 1:
        return probabilities
    ordered, order = probabilities.sort(-1, descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return torch.zeros_like(ordered).scatter(-1, order, ordered.masked_fill(outside, 0.0))


@torch.no_grad()
def draw_batch(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    choose: TokenChoice,
    *,
    limit: int,
    stops: Sequence[int],
    pad_id: int,
) -> list[SampledResponse]:
    """Draw up to `limit` tokens behind each prompt, all rows together until the last one has ended.

    Raises FloatingPointError if the model's scores are not finite numbers.
    """
    device = next(model.parameters()).device
    # Padded on the left, so that the last column is every row's newest token.
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts]).to(device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]).to(device)
    endings = torch.tensor(list(stops), device=device, dtype=torch.long)
    # Counted from the first real token: padding must not move a prompt to positions that it has not alone.
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    lengths = torch.zeros(len(prompts), dtype=torch.long, device=device)
    drawn: list[torch.Tensor] = []
    cache: Any = None
    for _ in range(limit):
        scores, cache = next_scores(model, ids, cache, attention_mask=mask, position_ids=positions)
        tokens = choose(scores)
        # Before `ended` is updated: a row's stop belongs to its answer, what it draws behind that does not.
        lengths += ~ended
        drawn.append(tokens)
        ended |= torch.isin(tokens, endings)
        if bool(ended.all()):
            break
        ids, positions = tokens[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(ids)], 1)
    table = torch.stack(drawn, 1).tolist()
    return [
        SampledResponse(tuple(row[:length]), end)
        for row, length, end in zip(table, lengths.tolist(), ended.tolist(), strict=True)
    ]


def generate_greedily(
    model: Any, prompts: Sequence[Sequence[int]], *, limit: int, stops: Sequence[int], pad_id: int
) -> list[tuple[int, ...]]:
    """Return up to `limit` new tokens for each prompt, each the likeliest one.

    transformers' `generate` would add what the base's own defaults ask for, such as a penalty on repetition. Raises
    TrainerError (`loss_not_finite`) if the model's scores are not finite numbers.
    """
    try:
        drawn = draw_batch(model, prompts, lambda scores: scores.argmax(-1), limit=limit, stops=stops, pad_id=pad_id)
    except FloatingPointError as error:
        raise TrainerError("loss_not_finite", f"The model cannot answer the report's prompts: {error}.") from error
    return [response.ids for response in drawn]
