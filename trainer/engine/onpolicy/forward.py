"""Scoring responses: log-probabilities, entropies, values and scores, at the positions that matter only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from trainer.engine.data.batches import collate_sequences, pad_right
from trainer.engine.models.families import find_backbone
from trainer.engine.scoring.head import limit_head_input

# Entropies need a softmax over the vocabulary at every token; a few rows at a time keep it out of the peak.
ENTROPY_ROWS = 64


@dataclass(frozen=True)
class Batch:
    """Prompts with their responses, padded on the right: ids and attention mask [rows, tokens].

    `predicting` [rows, tokens] is true where the next token is one of the response: from the prompt's last position
    to the last but one. `targets` [n] are the response tokens, row by row.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    predicting: torch.Tensor
    targets: torch.Tensor

    @property
    def last(self) -> torch.Tensor:
        """The place of each row's last real token [rows]; by length, because a padding id may be an end token."""
        return self.attention_mask.sum(1) - 1


def collate_responses(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad_id: int, device: Any
) -> Batch:
    """Lay prompts and responses out as one batch. Masks come from lengths alone."""
    rows = list(zip(prompts, responses, strict=True))
    batch = collate_sequences([[*prompt, *response] for prompt, response in rows], pad_id)
    # One place to the left: the logits at a token are about the one behind it.
    places = [[0] * (len(prompt) - 1) + [1] * len(response) + [0] for prompt, response in rows]
    targets = torch.tensor([token for response in responses for token in response], dtype=torch.long)
    return Batch(
        batch["input_ids"].to(device),
        batch["attention_mask"].to(device),
        pad_right(places, 0).bool().to(device),
        targets.to(device),
    )


def response_log_probs(model: nn.Module, batch: Batch, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log π(token) and, without a graph, the entropy of π at each response token: two flat tensors [n], nats.

    π is the softmax of logits / temperature, the distribution that responses are sampled from.
    """
    with limit_head_input(model, lambda hidden: hidden[batch.predicting]):
        outputs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    logits = outputs.logits.float()
    if temperature != 1.0:
        logits = logits / temperature
    return -nn.functional.cross_entropy(logits, batch.targets, reduction="none"), _token_entropies(logits.detach())


def response_values(model: nn.Module, head: nn.Linear, batch: Batch) -> torch.Tensor:
    """Return the value in front of each response token: a flat tensor [n]."""
    return head(hidden_states(model, batch)[batch.predicting].to(head.weight.dtype)).squeeze(-1)


def last_token_scores(model: nn.Module, head: nn.Linear, batch: Batch) -> torch.Tensor:
    """Return the head's output at each row's last real token [rows]."""
    hidden = hidden_states(model, batch)
    rows = torch.arange(len(hidden), device=hidden.device)
    return head(hidden[rows, batch.last].to(head.weight.dtype)).squeeze(-1)


def hidden_states(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return the decoder's last hidden states [rows, tokens, width], with whichever adapter is active."""
    # Without the LM head: the product with the whole vocabulary is the most expensive step, and nothing here needs it.
    decoder = find_backbone(cast(Any, model).get_base_model())
    return decoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).last_hidden_state


@torch.no_grad()
def _token_entropies(logits: torch.Tensor) -> torch.Tensor:
    parts: list[torch.Tensor] = []
    for rows in logits.split(ENTROPY_ROWS):
        log_probs = rows.log_softmax(-1)
        parts.append(-(log_probs.exp() * log_probs).sum(-1))
    return torch.cat(parts) if parts else logits.new_zeros(0)
