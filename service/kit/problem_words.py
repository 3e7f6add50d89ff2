"""What is wrong with a value, in words: pydantic's problems as short sentences about fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

_MUST_BE = "must be "
_KINDS = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "none_required": "null",
}
"""What the value must be instead, by the type of pydantic's problem."""
_FOLLOW_FROM_INSIDE = frozenset({*_KINDS, "literal_error", "too_short"})
"""What says nothing more about a place if there is a problem further inside."""
_WORDS: Mapping[str, Callable[[str, Mapping[str, Any]], str]] = {
    "literal_error": lambda _, context: _MUST_BE + str(context["expected"]),
    "greater_than": lambda _, context: f"must be greater than {_write_number(context['gt'])}",
    "greater_than_equal": lambda _, context: f"must be at least {_write_number(context['ge'])}",
    "less_than": lambda _, context: f"must be less than {_write_number(context['lt'])}",
    "less_than_equal": lambda _, context: f"must be at most {_write_number(context['le'])}",
    "too_short": lambda name, context: f"give at least {_count_items(context['min_length'], name)}",
    "too_long": lambda name, context: f"give at most {_count_items(context['max_length'], name)}",
    "string_too_short": lambda _, context: f"must have at least {_count_items(context['min_length'], 'characters')}",
    "string_too_long": lambda _, context: f"must have at most {_count_items(context['max_length'], 'characters')}",
    "string_pattern_mismatch": lambda _, context: f"must match the pattern {context['pattern']}",
    "union_tag_invalid": lambda _, context: (
        f"has the {context['discriminator'].strip(chr(39))} '{str(context['tag'])[:64]}'; use one of "
        f"{context['expected_tags']}"
    ),
    "union_tag_not_found": lambda _, context: f"needs a {context['discriminator'].strip(chr(39))}",
    "extra_forbidden": lambda _, __: "unknown argument; check its spelling",
    "missing": lambda _, __: "required, but it is missing",
}


class FieldProblem(NamedTuple):
    """A place in the request, as the caller wrote it, and what is wrong there."""

    place: tuple[str, ...]
    kind: str
    """The type of pydantic's problem."""
    sentence: str


def word_problem(place: tuple[str, ...], item: Mapping[str, Any]) -> FieldProblem:
    """Return one of pydantic's problems in words."""
    kind = item["type"]
    name = next((part for part in reversed(place) if not part.isdigit()), "")
    if kind in _KINDS:
        sentence = _MUST_BE + _KINDS[kind]
    elif kind in _WORDS:
        sentence = _WORDS[kind](name, item.get("ctx") or {})
    else:
        sentence = str(item["msg"]).removeprefix("Value error, ").replace("Input should be ", _MUST_BE)
    return FieldProblem(place, kind, sentence)


def join_alternatives(problems: Iterable[FieldProblem]) -> dict[tuple[str, ...], str]:
    """Return one sentence for each place.

    Pydantic reports a value of several possible kinds once for each kind. Of those, the caller meant the one that
    fits further inside; if none does, the sentences become one: "must be a string or a list". Nor does it count the
    bad items of a list, so that one bad message makes a list that is too short as well.
    """
    known = list(problems)
    inner_places = {problem.place[:end] for problem in known for end in range(len(problem.place))}
    sentences: dict[tuple[str, ...], list[str]] = {}
    for problem in known:
        if problem.place not in inner_places or problem.kind not in _FOLLOW_FROM_INSIDE:
            sentences.setdefault(problem.place, []).append(problem.sentence)
    return {place: _join_sentences(list(dict.fromkeys(own))) for place, own in sentences.items()}


def _join_sentences(sentences: list[str]) -> str:
    if all(sentence.startswith(_MUST_BE) for sentence in sentences):
        return _MUST_BE + " or ".join(sentence.removeprefix(_MUST_BE) for sentence in sentences)
    return " or ".join(sentences)


def _write_number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _count_items(count: int, name: str) -> str:
    """Count what a list holds, by the list's own name if that is a plural: 1 message, 2 part ids."""
    plural = name.replace("_", " ") if name.isascii() and name.isidentifier() and name.endswith("s") else "items"
    return f"{count} {plural if count != 1 else plural.removesuffix('s')}"
