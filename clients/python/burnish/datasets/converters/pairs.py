"""Pairs: `{"prompt"?, "chosen", "rejected", "system"?, "score_chosen"?, "score_rejected"?}`, strings or messages.

For `prompt` also `question`, or `instruction` with `input` and `history`. Without any, chosen and rejected are
whole conversations that begin alike.
"""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.converters.base import RankedExample, RankedResponse, parse_number
from burnish.datasets.converters.calls import options_of
from burnish.datasets.converters.prompts import prompt_messages, with_system
from burnish.datasets.converters.source import SourceRow
from burnish.datasets.converters.turns import output_of, split_common_prompt
from burnish.datasets.errors import NotConvertibleError
from burnish.datasets.wording import quote_value

_SIDES = ("chosen", "rejected")
_PROMPTS = ("prompt", "question", "query", "instruction")


class PairsConverter:
    """A prompt, the better answer and the worse one."""

    def matches_row(self, row: Row) -> bool:
        """Whether the row has chosen and rejected."""
        return all(side in row for side in _SIDES)

    def convert_row(self, row: Row) -> RankedExample:
        """Return the prompt and the two answers."""
        better, worse = (output_of(row.get(side), side) for side in _SIDES)
        key = next((key for key in _PROMPTS if key in row), None)
        if better[0]["role"] != "assistant" and worse[0]["role"] != "assistant":
            common, better, worse = split_common_prompt(better, worse)
            prompt = with_system(row, common) if key is None else _join_prompts(prompt_messages(row, key), common, key)
        elif key is not None:
            prompt = prompt_messages(row, key)
        else:
            raise NotConvertibleError("prompt: is missing")
        first, second = _scores_of(row)
        return RankedExample(
            prompt, [RankedResponse(better, 1, first), RankedResponse(worse, 2, second)], options_of(row)
        )


def _join_prompts(prompt: list[Row], common: list[Row], key: str) -> list[Row]:
    """Return the longer one of a row's prompt and the beginning that its conversations share, if they agree."""
    system = [message for message in prompt if message["role"] == "system"]
    spoken, common_spoken = ([turn for turn in turns if turn["role"] != "system"] for turns in (prompt, common))
    if spoken == common_spoken[: len(spoken)] or (len(spoken) == 1 and spoken[0] in common_spoken):
        return [*(message for message in system if message not in common), *common]
    if spoken[-len(common_spoken) :] == common_spoken:
        return [*(message for message in common if message["role"] == "system" and message not in system), *prompt]
    raise NotConvertibleError(f"{key}: is not where the conversations in chosen and rejected begin")


def _scores_of(row: Row) -> tuple[float | None, float | None]:
    """Return the scores of both sides, or of none: one without the other says nothing."""
    keys = [f"score_{side}" for side in _SIDES]
    for key in keys:
        if row.get(key) is not None and parse_number(row[key]) is None:
            raise NotConvertibleError(f"{key}: is {quote_value(row[key])}; use a number")
    first, second = (parse_number(row.get(key)) for key in keys)
    if first is not None and second is not None:
        return first, second
    if isinstance(row, SourceRow):
        row.leave_out(*keys)
    return None, None
