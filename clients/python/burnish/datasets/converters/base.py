"""What the converters agree on: a row of theirs becomes an example, and the example rows of a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

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
    tools: list[Row] | None = None
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
    tools: list[Row] | None = None


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


def system_messages(row: Row) -> list[Row]:
    """Return the message of a row's `system` key, if it says anything."""
    system = require_string(row, "system", "")
    return [make_message("system", system)] if system.strip() else []


def by_score(outputs: list[list[Row]], scores: list[float]) -> list[RankedResponse]:
    """Rank outputs by their scores, the highest first; equal scores share a rank."""
    ranks = {score: rank for rank, score in enumerate(sorted(set(scores), reverse=True), start=1)}
    return [RankedResponse(output, ranks[score], score) for output, score in zip(outputs, scores, strict=True)]
