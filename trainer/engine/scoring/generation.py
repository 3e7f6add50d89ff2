"""Drawing tokens from a model's scores, and answering prompts greedily."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig


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


def generate_greedily(
    model: Any, prompts: Sequence[Sequence[int]], *, limit: int, stops: Sequence[int], pad_id: int
) -> list[list[int]]:
    """Return up to `limit` new tokens for each prompt, padded if an answer ended earlier than the longest.

    Plain greedy decoding: a base's own defaults may sample, and samples would differ between runs.
    """
    longest = max(len(ids) for ids in prompts)
    padding = [longest - len(ids) for ids in prompts]
    ids = [[pad_id] * extra + list(prompt) for extra, prompt in zip(padding, prompts, strict=True)]
    mask = [[0] * extra + [1] * (longest - extra) for extra in padding]
    output = model.generate(
        input_ids=torch.tensor(ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        generation_config=GenerationConfig(
            max_new_tokens=limit,
            do_sample=False,
            use_cache=True,
            eos_token_id=list(stops) or None,
            pad_token_id=pad_id,
        ),
    )
    return [row[longest:].tolist() for row in output]
