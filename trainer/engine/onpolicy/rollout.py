"""Sampling responses to many prompts: in groups that fit a pass, from one seeded generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from trainer.engine.data.batches import batches_within
from trainer.engine.scoring.generation import SampledResponse, draw_batch, draw_tokens
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
    choose = partial(draw_tokens, temperature=sampling.temperature, top_p=sampling.top_p, generator=generator)
    found: dict[int, SampledResponse] = {}
    lengths = [len(prompt) + sampling.max_new_tokens for prompt in prompts]
    # One generator through all groups, so the groups' order is a part of what a seed gives: it follows from lengths.
    for numbers in batches_within(lengths, device.type):
        if should_stop():
            return None
        try:
            drawn = draw_batch(
                model,
                [prompts[number] for number in numbers],
                choose,
                limit=sampling.max_new_tokens,
                stops=sampling.stops,
                pad_id=sampling.pad_id,
            )
        except FloatingPointError as error:
            raise TrainerError(
                "policy_collapsed",
                f"The policy collapsed: {error}. Lower learning_rate_multiplier or raise kl_coef; the last "
                "checkpoint is good.",
                param=param,
            ) from error
        found.update(zip(numbers, drawn, strict=True))
    return [found[number] for number in range(len(prompts))]
