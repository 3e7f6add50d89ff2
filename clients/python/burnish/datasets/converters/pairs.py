"""Pairs: `{"prompt"?, "chosen", "rejected", "system"?, "score_chosen"?, "score_rejected"?}`, strings or messages.

For `prompt` also `question`, or `instruction` with `input` and `history`. Without any, chosen and rejected are
whole conversations that begin alike.
"""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.converters.alpaca import prompt_messages
from burnish.datasets.converters.base import RankedExample, RankedResponse, system_messages
from burnish.datasets.converters.turns import output_of, prompt_of, split_common_prompt, tools_of
from burnish.datasets.errors import NotConvertibleError

_SIDES = ("chosen", "rejected")


class PairsConverter:
    """A prompt, the better answer and the worse one."""

    def matches_row(self, row: Row) -> bool:
        """Whether the row has chosen and rejected."""
        return all(side in row for side in _SIDES)

    def convert_row(self, row: Row) -> RankedExample:
        """Return the prompt and the two answers."""
        better, worse = (output_of(row.get(side), side) for side in _SIDES)
        if better[0]["role"] != "assistant" and worse[0]["role"] != "assistant":
            # Whole conversations, of which a prompt beside them is only the beginning.
            prompt, better, worse = split_common_prompt(better, worse)
        else:
            prompt = _pair_prompt(row)
        scores = [_score_value(row, f"score_{side}") for side in _SIDES]
        # One score without the other says nothing.
        first, second = scores if None not in scores else (None, None)
        return RankedExample(
            prompt, [RankedResponse(better, 1, first), RankedResponse(worse, 2, second)], tools_of(row)
        )


def _pair_prompt(row: Row) -> list[Row]:
    for key in ("prompt", "question"):
        if key in row:
            return [*system_messages(row), *prompt_of(row[key], key)]
    if "instruction" in row:
        return prompt_messages(row)
    raise NotConvertibleError("prompt: is missing")


def _score_value(row: Row, key: str) -> float | None:
    value = row.get(key)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
