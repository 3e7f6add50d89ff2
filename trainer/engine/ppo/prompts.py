"""Prompts as token ids, and the order in which iterations take them: a pure function of (seed, iteration)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jinja2.exceptions import TemplateError

from trainer.engine.template import ChatTemplate
from trainer.errors import TrainerError
from trainer.rows import ChatRow, ItemRow, Message, PromptRow

_PROBE = "burnishprobe"


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt up to the opening of the answer. `line` is the row's line in its file."""

    line: int
    input_ids: tuple[int, ...]
    reference: str | None = None
    item: Mapping[str, Any] | None = None
    """The whole row, where a grader may ask for any of its keys."""


def tokenize_prompts(template: ChatTemplate, rows: Iterable[PromptRow], *, param: str) -> list[TokenizedPrompt]:
    """Render and tokenize each prompt. Raises TrainerError (`unsupported_conversation`), naming the line."""
    return [_tokenize(template, row, param) for row in rows]


def as_conversation(row: PromptRow) -> ChatRow:
    """Return the prompt with its reference as the answer, empty where it has none: a question for the report."""
    answer = Message(role="assistant", content=row.reference or "")
    return ChatRow(messages=(*row.input.messages, answer), tools=row.input.tools, line=row.line)


def closing_ids(template: ChatTemplate) -> tuple[int, ...]:
    """Return the tokens that the template writes behind an assistant's content: its end of turn and what follows."""
    text = template.render([{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}], None)
    return tuple(template.tokenizer(text.rpartition(_PROBE)[2], add_special_tokens=False)["input_ids"])


def stop_ids(template: ChatTemplate, known: int | list[int] | None) -> tuple[int, ...]:
    """Return the ids that end an answer: the model's own, the tokenizer's, and the template's end of turn."""
    stops: set[int] = {known} if isinstance(known, int) else set(known or ())
    tokenizer = template.tokenizer
    if isinstance(tokenizer.eos_token_id, int):
        stops.add(tokenizer.eos_token_id)
    if template.end_of_turn:
        found = tokenizer.convert_tokens_to_ids(template.end_of_turn)
        assert isinstance(found, int)
        stops.add(found)
    return tuple(sorted(stops))


def prompts_of_iteration(count: int, rollout: int, seed: int, iteration: int) -> list[int]:
    """Return the numbers of the prompts of an iteration, from 0: shuffled passes over all of them, end to end."""
    places = range(iteration * rollout, (iteration + 1) * rollout)
    orders = {epoch: _shuffled(count, seed, epoch) for epoch in {place // count for place in places}}
    return [orders[place // count][place % count] for place in places]


def derived_seed(seed: int, iteration: int, purpose: int) -> int:
    """Return a seed of its own for each iteration and purpose, so that no generator's state needs to be kept."""
    return (seed * 1_000_003 + iteration) * 64 + purpose


def _shuffled(count: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def _tokenize(template: ChatTemplate, row: PromptRow, param: str) -> TokenizedPrompt:
    try:
        messages, tools = template.messages(as_conversation(row))
        text = template.render(messages[:-1], tools, prompt=True)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise TrainerError(
            "unsupported_conversation",
            f"The base model's chat template cannot render the prompt in line {row.line}: {error}.",
            param=param,
        ) from error
    ids = template.tokenizer(text, add_special_tokens=False)["input_ids"]
    item = row.item if isinstance(row, ItemRow) else None
    return TokenizedPrompt(row.line, tuple(ids), row.reference, item)
