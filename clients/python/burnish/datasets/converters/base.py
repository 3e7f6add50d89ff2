"""What the converters agree on: a row of theirs becomes an example, and the example rows of a method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from burnish.datasets.base import Row
from burnish.datasets.errors import NotConvertibleError
from burnish.datasets.wording import json_kind


@dataclass(frozen=True)
class TextExample:
    """A document for pre-training."""

    text: str


@dataclass(frozen=True)
class ChatExample:
    """A conversation; `label` says whether its last answer was found good."""

    messages: list[Row]
    options: Row = field(default_factory=dict[str, Any])
    """`tools` and `parallel_tool_calls`."""
    label: bool | None = None


@dataclass(frozen=True)
class RankedResponse:
    """What followed the prompt, its rank (1 the best) and perhaps the score behind it (higher is better)."""

    messages: list[Row]
    rank: int
    score: float | None = None


@dataclass(frozen=True)
class RankedExample:
    """A prompt and its responses, two or more, in any order."""

    prompt: list[Row]
    responses: list[RankedResponse]
    options: Row = field(default_factory=dict[str, Any])
    """`tools` and `parallel_tool_calls`."""


Example = TextExample | ChatExample | RankedExample


class Converter(Protocol):
    """Reads the rows of one format."""

    def matches_row(self, row: Row) -> bool:
        """Whether the row's keys are this format's."""
        ...

    def convert_row(self, row: Row) -> Example:
        """Return what the row says, every text unchanged. Raises NotConvertibleError."""
        ...


def require_string(row: Row, key: str, default: str | None = None) -> str:
    """Return the text under a key, or `default` if the key is missing or null. Raises NotConvertibleError."""
    value = row.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise NotConvertibleError(
            f"{key}: " + (f"must be a string, not {json_kind(value)}" if key in row else "is missing")
        )
    return value


def make_message(role: str, content: str) -> Row:
    """Return a message with a role and a text."""
    return {"role": role, "content": content}


def label_of(row: Row, *keys: str) -> bool | None:
    """Return whether a row says that its answer is good; None if it says nothing. Raises NotConvertibleError."""
    key = next((key for key in keys if row.get(key) is not None), None)
    if key is None:
        return None
    if not isinstance(row[key], bool):
        raise NotConvertibleError(f"{key}: must be true or false")
    return bool(row[key])


def parse_number(value: object) -> float | None:
    """Return a number, also from text such as "4" (UltraFeedback's ratings); None for N/A."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def by_score(outputs: list[list[Row]], scores: list[float]) -> list[RankedResponse]:
    """Rank outputs by their scores, the highest first; equal scores share a rank."""
    ranks = {score: rank for rank, score in enumerate(sorted(set(scores), reverse=True), start=1)}
    return [RankedResponse(output, ranks[score], score) for output, score in zip(outputs, scores, strict=True)]
