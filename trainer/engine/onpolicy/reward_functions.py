"""Programmatic rewards: pure functions from an answer's text to a number, from an allow-list by name."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

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
_NO_WORD_BEFORE, _NO_WORD_AFTER = r"(?<!\w)(?<!\w['\u2019])", r"(?!\w)(?!['\u2019]\w)"


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
        value = _parse_json(text)
        return float(not given.match_reference or _is_same_json(value, _parse_json(reference or "null")))
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


def _parse_json(text: str) -> Any:
    """Return the value of a JSON text. Raises ValueError, for NaN and Infinity, too, which Python takes for JSON."""
    return json.loads(text, parse_constant=_reject_constant)


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _is_same_json(left: Any, right: Any) -> bool:
    """Compare JSON values: numbers by their value, while Python's 1 == True is false in JSON."""
    if isinstance(left, dict) and isinstance(right, dict):
        ours, theirs = cast("dict[str, Any]", left), cast("dict[str, Any]", right)
        return ours.keys() == theirs.keys() and all(_is_same_json(ours[key], theirs[key]) for key in ours)
    if isinstance(left, list) and isinstance(right, list):
        pairs = zip(cast("list[Any]", left), cast("list[Any]", right), strict=False)
        return len(cast("list[Any]", left)) == len(cast("list[Any]", right)) and all(
            _is_same_json(one, other) for one, other in pairs
        )
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _count_occurrences(text: str, terms: Sequence[str]) -> dict[str, int]:
    """Count whole words and phrases where a script separates words, and substrings where it does not, as in Chinese."""
    folded = text.casefold()
    spoken = Counter(_WORD.findall(folded))
    return {term: _count_term(term.casefold(), folded, spoken) for term in terms}


def _count_term(term: str, folded: str, spoken: Mapping[str, int]) -> int:
    if not term.isascii():
        return folded.count(term)
    if _WORD.fullmatch(term):
        return spoken.get(term, 0)
    # A phrase ("thank you"), or a word with other characters in it ("e-mail", "c++").
    pieces = term.split()
    if not all(piece in folded for piece in pieces):
        return 0
    phrase = r"\s+".join(map(re.escape, pieces))
    start = _NO_WORD_BEFORE if pieces[0][0].isalnum() else ""
    end = _NO_WORD_AFTER if pieces[-1][-1].isalnum() else ""
    return len(re.findall(f"{start}{phrase}{end}", folded))
