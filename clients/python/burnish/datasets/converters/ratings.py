"""Ratings, as in UltraFeedback: a prompt and several completions, each with a score or a rank.

The prompt is `instruction`, `prompt` or `question`; the completions are `completions`, `responses`, `answers` or
`generations`, strings or objects. A completion's score is the mean of its `annotations`' ratings if it has any
(its `overall_score` is known to be less reliable), else its `fine-grained_score`, `overall_score`, `score` or
`rating`; scores may also stand beside the completions in `ratings` or `scores`.
"""

from __future__ import annotations

from statistics import fmean
from typing import cast

from burnish.datasets.base import Row
from burnish.datasets.converters.base import RankedExample, RankedResponse, by_score, parse_number
from burnish.datasets.converters.calls import options_of
from burnish.datasets.converters.prompts import prompt_messages
from burnish.datasets.converters.turns import output_of
from burnish.datasets.errors import NotConvertibleError
from burnish.datasets.wording import json_kind

_PROMPTS = ("instruction", "prompt", "question")
_LISTS = ("completions", "responses", "answers", "generations")
_TEXTS = ("response", "completion", "answer", "text", "content", "message")
_SCORES = ("fine-grained_score", "overall_score", "score", "rating")
_BESIDE = ("ratings", "scores")


class RatingsConverter:
    """Rated completions become ranks: the higher the score, the better; equal scores tie."""

    def matches_row(self, row: Row) -> bool:
        """Whether the row has a prompt and a list of completions."""
        return _first_present_key(row, _PROMPTS) is not None and isinstance(
            row.get(_first_present_key(row, _LISTS) or ""), list
        )

    def convert_row(self, row: Row) -> RankedExample:
        """Return the prompt and the ranked completions."""
        prompt_key, list_key = _first_present_key(row, _PROMPTS), _first_present_key(row, _LISTS)
        if prompt_key is None or list_key is None:
            raise NotConvertibleError(f"the row has no {' or '.join(_PROMPTS if prompt_key is None else _LISTS)}")
        if not isinstance(row[list_key], list):
            raise NotConvertibleError(f"{list_key}: must be a list, not {json_kind(row[list_key])}")
        items = cast("list[object]", row[list_key])
        outputs = [_completion_messages(item, f"{list_key}[{index}]") for index, item in enumerate(items)]
        return RankedExample(
            prompt_messages(row, prompt_key), _rank_outputs(row, list_key, items, outputs), options_of(row)
        )


def _first_present_key(row: Row, keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if row.get(key) is not None), None)


def _completion_messages(item: object, place: str) -> list[Row]:
    if isinstance(item, dict) and "role" not in item:
        row = cast("Row", item)
        key = _first_present_key(row, _TEXTS)
        if key is None:
            raise NotConvertibleError(f"{place}: has no {', '.join(_TEXTS[:-1])} or {_TEXTS[-1]}")
        return output_of(row[key], f"{place}.{key}")
    return output_of(cast("object", item), place)


def _rank_outputs(row: Row, list_key: str, items: list[object], outputs: list[list[Row]]) -> list[RankedResponse]:
    rows = [cast("Row", item) if isinstance(item, dict) else {} for item in items]
    if rows and all(isinstance(item.get("rank"), (int, float)) for item in rows):
        return [
            RankedResponse(response.messages, response.rank)
            for response in by_score(outputs, [-float(item["rank"]) for item in rows])
        ]
    beside = _first_present_key(row, _BESIDE)
    values = _require_list(row, beside) if beside else [_completion_score(item) for item in rows]
    if len(values) != len(outputs):
        raise NotConvertibleError(f"{beside}: has {len(values)} values for {len(outputs)} completions")
    scores = [parse_number(value) for value in values]
    for index, score in enumerate(scores):
        if score is None:
            place = f"{beside}[{index}]" if beside else f"{list_key}[{index}]"
            raise NotConvertibleError(f"{place}: has no rank and no score")
    return by_score(outputs, [score for score in scores if score is not None])


def _require_list(row: Row, key: str) -> list[object]:
    if not isinstance(row[key], list):
        raise NotConvertibleError(f"{key}: must be a list, not {json_kind(row[key])}")
    return cast("list[object]", row[key])


def _completion_score(item: Row) -> float | None:
    annotations = item.get("annotations")
    if isinstance(annotations, dict):
        judgements = cast("dict[str, object]", annotations).values()
        ratings = [parse_number(cast("Row", aspect).get("Rating")) for aspect in judgements if isinstance(aspect, dict)]
        known_ratings = [rating for rating in ratings if rating is not None]
        if known_ratings:
            return fmean(known_ratings)
    return next((score for score in (parse_number(item.get(key)) for key in _SCORES) if score is not None), None)
