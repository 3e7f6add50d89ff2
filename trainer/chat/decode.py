"""Drawing one answer, token by token, from a prompt that has been read once.

Rollouts and samples draw by the same step, in a loop of their own: `trainer.engine.scoring.generation` says why.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainer.contract.chat import Sampling
from trainer.engine.scoring.generation import draw_tokens, next_scores


@dataclass(frozen=True)
class DrawnToken:
    """A token, its natural log-probability under the model itself, and the likeliest tokens in its place."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt that the model has read: the scores [vocabulary] of the token after it, and the key-value cache."""

    scores: torch.Tensor
    cache: Any


def read_prompt(model: Any, prompt: Sequence[int]) -> ReadPrompt:
    """Let the model read a prompt. Raises FloatingPointError if its scores are not numbers."""
    with torch.inference_mode():
        scores, cache = next_scores(model, torch.tensor([list(prompt)], device=model.device), None)
    return ReadPrompt(scores[0], cache)


def draw_answer(
    current_model: Callable[[], Any], prompt: ReadPrompt, sampling: Sampling, generator: torch.Generator, limit: int
) -> Iterator[DrawnToken]:
    """Yield up to `limit` tokens. The same generator's state, prompt and weights give the same tokens.

    The model is asked for at each token and not kept between them: another base may be loaded in a pause.
    Raises FloatingPointError if the model's scores are not numbers.
    """
    # The cache grows in place, and the next answer to the same prompt begins where this one did.
    cache = copy.deepcopy(prompt.cache)
    token: int | None = None
    token_counts: Counter[int] = Counter()
    for _ in range(limit):
        with torch.inference_mode():
            scores = prompt.scores if token is None else _score_behind(current_model(), token, cache)
            drawn_token = _choose_token(scores, sampling, generator, token_counts)
        yield drawn_token
        token = drawn_token.token
        token_counts[token] += 1


def _score_behind(model: Any, token: int, cache: Any) -> torch.Tensor:
    # The cache grows in place: what the step returns is the same object.
    return next_scores(model, torch.tensor([[token]], device=model.device), cache)[0][0]


def _choose_token(
    scores: torch.Tensor, sampling: Sampling, generator: torch.Generator, token_counts: Counter[int]
) -> DrawnToken:
    log_probs = scores.log_softmax(-1)
    token = _pick_token(_adjust_scores(scores, sampling, token_counts), sampling, generator)
    top: tuple[tuple[int, float], ...] = ()
    if sampling.top_logprobs:
        values, numbers = log_probs.topk(min(sampling.top_logprobs, log_probs.numel()))
        top = tuple(zip(numbers.tolist(), values.tolist(), strict=True))
    return DrawnToken(token, float(log_probs[token]), top)


def _adjust_scores(scores: torch.Tensor, sampling: Sampling, token_counts: Counter[int]) -> torch.Tensor:
    """Apply the caller's bias, and OpenAI's penalties: `score - count · frequency - (count > 0) · presence`."""
    if not sampling.logit_bias and not (token_counts and (sampling.presence_penalty or sampling.frequency_penalty)):
        return scores
    scores = scores.clone()
    for token, bias in _bias_in_vocabulary(sampling.logit_bias, scores.numel()):
        scores[token] += bias
    for token, count in token_counts.items():
        scores[token] -= count * sampling.frequency_penalty + sampling.presence_penalty
    return scores


def _bias_in_vocabulary(bias: dict[int, float], vocabulary: int) -> Collection[tuple[int, float]]:
    return [(token, value) for token, value in bias.items() if 0 <= token < vocabulary]


def _pick_token(scores: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    if sampling.temperature == 0:
        return int(scores.argmax())
    return int(draw_tokens(scores, sampling.temperature, sampling.top_p, generator))
