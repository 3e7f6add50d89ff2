"""The check of the behaviour that the dataset teaches, by the standard library alone."""

import json
from typing import cast

TOPICS = frozenset({"account", "delivery", "payment", "product", "returns"})
"""The topics that an answer may name."""

KEYS = frozenset({"topic", "urgent", "reply"})
"""The keys of an answer: all of them, and no others."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    answer = dict(pairs)
    if len(answer) != len(pairs):
        raise ValueError("a key occurs twice")
    return answer


def parse_answer(answer: str) -> dict[str, object] | None:
    """Return the fields of an answer that shows the behaviour, or None for any other text.

    White space around the object is allowed, because a chat template may add a line break; any other text
    around it is not.
    """
    try:
        fields = cast(object, json.loads(answer, object_pairs_hook=_unique))
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    fields = cast(dict[str, object], fields)
    return fields if _well_formed(fields) else None


def _well_formed(fields: dict[str, object]) -> bool:
    if fields.keys() != KEYS:
        return False
    topic, reply = fields["topic"], fields["reply"]
    if not isinstance(topic, str) or not isinstance(reply, str):
        return False
    return topic in TOPICS and isinstance(fields["urgent"], bool) and bool(reply.strip())


def shows_behaviour(answer: str) -> bool:
    """Return whether the whole answer is one JSON object with a known topic, an urgency and a reply."""
    return parse_answer(answer) is not None


def same_topic(answer: str, expected: str) -> bool:
    """Return whether both answers show the behaviour and name the same topic."""
    ours, theirs = parse_answer(answer), parse_answer(expected)
    return ours is not None and theirs is not None and ours["topic"] == theirs["topic"]
