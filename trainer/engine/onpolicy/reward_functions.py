"""Programmatic rewards: pure functions from an answer's text to a number, from an allow-list by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from trainer.contract.methods.reward_functions import (
    REWARD_PARAMETERS,
    ContainsReward,
    ExactMatchReward,
    JsonValidReward,
    LengthReward,
    LexiconReward,
    RewardFunction,
)

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


def score_length(text: str, _reference: str | None, given: LengthReward) -> float:
    """Return -|size - target| / target, the size in characters or words: zero is the best."""
    size = len(text) if given.unit == "characters" else len(_WORD.findall(text))
    return -abs(size - given.target) / given.target


def score_contained_words(text: str, _reference: str | None, given: ContainsReward) -> float:
    """Return the share of the given words or phrases that the text has, whatever their case."""
    folded = text.casefold()
    return sum(word.casefold() in folded for word in given.words) / len(given.words)


def score_lexicon(text: str, _reference: str | None, given: LexiconReward) -> float:
    """Return the mean weight of the lexicon's words in the text, counted as often as they occur; 0 without any."""
    counts = _count_occurrences(text, list(given.weights))
    total = sum(counts.values())
    return sum(given.weights[word] * count for word, count in counts.items()) / total if total else 0.0


def score_exact_match(text: str, reference: str | None, given: ExactMatchReward) -> float:
    """Return 1 if the text is the row's reference, white space at its ends left out, else 0."""
    said, wanted = text.strip(), (reference or "").strip()
    return float(said.casefold() == wanted.casefold() if given.ignore_case else said == wanted)


def score_json_validity(text: str, reference: str | None, given: JsonValidReward) -> float:
    """Return 1 if the text is JSON (and equals the row's reference as a value, if asked for), else 0."""
    try:
        value = json.loads(text)
        return float(not given.match_reference or value == json.loads(reference or "null"))
    except (ValueError, RecursionError):
        return 0.0


# One line a function: the wire's name is the key.
FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "length": score_length,
    "contains": score_contained_words,
    "lexicon": score_lexicon,
    "exact_match": score_exact_match,
    "json_valid": score_json_validity,
}
assert FUNCTIONS.keys() == REWARD_PARAMETERS.keys()


def score_texts(
    function: str, parameters: RewardFunction, texts: Sequence[str], references: Sequence[str | None]
) -> list[float]:
    """Score each text with the function of that name."""
    score = FUNCTIONS[function]
    return [score(text, reference, parameters) for text, reference in zip(texts, references, strict=True)]


def _count_occurrences(text: str, words: Sequence[str]) -> dict[str, int]:
    """Count whole words where a script separates them, and substrings where it does not, as in Chinese."""
    folded = text.casefold()
    spoken = _WORD.findall(folded)
    return {word: spoken.count(word.casefold()) if word.isascii() else folded.count(word.casefold()) for word in words}
