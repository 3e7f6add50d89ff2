"""A bound on what the description of a wrong body costs: pydantic describes each problem, however many there are."""

from __future__ import annotations

from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from service.kit.errors import InvalidRequest
from service.kit.problem_words import join_alternatives, word_problem

FEW_ELEMENTS = 128
"""Bodies of no more values than that cannot have many problems."""
MOST_PROBLEMS = 1000
"""More problems than that are counted, and only the first are described."""
_DESCRIBED = 3
_KEPT = 16
_FROM_CUTTING = frozenset({"missing", "too_short"})


def refuse_many_problems(adapter: TypeAdapter[Any], body: object) -> None:
    """Raise InvalidRequest if a body has more than MOST_PROBLEMS problems; its words name the first of them.

    Describing thousands takes many times as long as finding them. The first are found by looking at a body of which
    every list and object was cut short.
    """
    try:
        adapter.validate_python(body)
    except ValidationError as error:
        count = error.error_count()
        if count <= MOST_PROBLEMS:
            return
        first = _describe_first(adapter, body)
        raise InvalidRequest(
            f"The body has {count} problems, too many to name them all{first}. Check it against the operation's "
            "description at /docs."
        ) from None


def _describe_first(adapter: TypeAdapter[Any], body: object) -> str:
    try:
        adapter.validate_python(_cut_value(body))
    except ValidationError as error:
        errors = [item for item in error.errors(include_url=False) if item["type"] not in _FROM_CUTTING]
        problems = join_alternatives(word_problem(tuple(map(str, item["loc"])), item) for item in errors)
        sentences = [f"{'.'.join(place)[:128]}: {text[:256]}" for place, text in [*problems.items()][:_DESCRIBED]]
        return f"; among them {'; '.join(sentences)}" if sentences else ""
    return ""


def _cut_value(value: object) -> object:
    if isinstance(value, dict):
        return {key: _cut_value(child) for key, child in [*cast("dict[str, Any]", value).items()][:_KEPT]}
    if isinstance(value, list):
        return [_cut_value(child) for child in cast("list[Any]", value)[:_KEPT]]
    return value
