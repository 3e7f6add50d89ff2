"""Keys that a conversion may not leave out: without them, the rows would say something else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from burnish.datasets.converters.weights import WEIGHT_KEYS
from burnish.datasets.errors import NotConvertibleError
from burnish.datasets.wording import quote_value

_MEDIA = frozenset({"image", "images", "video", "videos", "audio", "audios"})
_REASONING = frozenset({"reasoning", "reasoning_content", "reasoning_details", "thinking", "chain_of_thought"})
_PROMPT = frozenset(
    {
        *("system", "system_prompt", "system_message", "history", "context", "input"),
        *("tools", "functions", "tool_calls", "function_call", "refusal"),
    }
)


def refuse_lost_meaning(unread: Iterable[tuple[str, Any]], *, carries_keys: bool) -> None:
    """Raise NotConvertibleError for the first key with a meaning that the conversion found no place for.

    If the rows that are written carry keys of their own, what stands at the top of the row is not lost.
    """
    for place, value in unread:
        name = place.rpartition(".")[2]
        if name in _MEDIA:
            raise NotConvertibleError(f"{place}: cannot be trained on, only text can; remove the key, or the row")
        if carries_keys and "." not in place:
            continue
        if name in _REASONING:
            raise NotConvertibleError(
                f"{place}: has no place of its own in a row; write it into the answer's text, or remove the key"
            )
        if name in _PROMPT:
            raise NotConvertibleError(f"{place}: would be left out here; write it into the messages, or remove the key")
        if place in WEIGHT_KEYS and _silences_row(place, value):
            raise NotConvertibleError(
                f"{place}: is {quote_value(value)}; a row has no weight, only its assistant's turns have one"
            )


def _silences_row(key: str, value: object) -> bool:
    if not isinstance(value, (bool, int, float)):
        return False
    return value == 0 or (key.endswith("weight") and value != 1)
