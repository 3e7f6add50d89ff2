"""The parts of an answer, and the tools that it may call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

PartKind = Literal["content", "reasoning", "tool_call"]


@dataclass(frozen=True)
class CallText:
    """A call of a function: its name, and its arguments as JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class AnswerPart:
    """The next part of an answer. Of a call, which comes whole, `text` is the arguments."""

    kind: PartKind
    text: str
    tool: str = ""


@dataclass(frozen=True)
class AnswerContent:
    """A whole answer."""

    text: str
    reasoning: str
    calls: tuple[CallText, ...]

    @classmethod
    def from_parts(cls, parts: Iterable[AnswerPart]) -> AnswerContent:
        """Join the parts of an answer."""
        parts = list(parts)
        return cls(
            text="".join(part.text for part in parts if part.kind == "content"),
            reasoning="".join(part.text for part in parts if part.kind == "reasoning"),
            calls=tuple(CallText(part.tool, part.text) for part in parts if part.kind == "tool_call"),
        )


@dataclass(frozen=True)
class OfferedTools:
    """The functions that an answer may call, with the schemas of their arguments. A call of any other is text."""

    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    any_name: bool = False
    """Whether every name counts: of answers to rows that describe their tools in words."""

    @classmethod
    def from_wire(cls, tools: Sequence[Mapping[str, Any]] | None) -> OfferedTools:
        """Read `tools` as OpenAI's chat has them."""
        functions = [_as_mapping(tool.get("function", tool)) for tool in tools or ()]
        return cls({str(function.get("name")): _as_mapping(function.get("parameters")) for function in functions})

    @property
    def empty(self) -> bool:
        """Whether no call is possible."""
        return not self.schemas and not self.any_name

    def has_name(self, name: str) -> bool:
        """Whether the function may be called."""
        return name in self.schemas or self.any_name

    def read_argument(self, tool: str, key: str, text: str) -> Any:
        """Return the value of an argument that was written without quotes, by the type that its schema names."""
        schema = _as_mapping(_as_mapping(self.schemas.get(tool, {}).get("properties")).get(key))
        types = _list_types(schema)
        if types == {"string"}:
            return text
        try:
            value = load_json(text)
        except ValueError:
            # Templates written in Jinja show these values as Python does.
            words: dict[str, Any] = {"True": True, "False": False, "None": None}
            return words[text] if text in words and "string" not in types else text
        # A text such as "12" where both are allowed: without quotes it is the number.
        return text if isinstance(value, str) else value


ReadCalls = Callable[[str, OfferedTools], "list[CallText] | None"]
"""Reads what stands between the marks of a call; None if that is malformed."""


class AnswerParser(Protocol):
    """Splits an answer's text, as it comes, into its parts. However the text is cut, the joined parts are the same."""

    def add_text(self, text: str) -> list[AnswerPart]:
        """Take text; return the parts that are certain now."""
        ...

    def finish_text(self) -> list[AnswerPart]:
        """Return what is left at the end of the answer."""
        ...


def load_json(text: str) -> Any:
    """Return a JSON value; line feeds in strings are taken as they are. Raises ValueError for whatever is not JSON."""
    try:
        return json.loads(text, strict=False, parse_constant=_refuse_constant)
    except RecursionError as error:  # a model may write lists in lists in lists
        raise ValueError("nested too deeply") from error


def dump_arguments(value: Any) -> str:
    """Return arguments as JSON text, characters as they are."""
    text = json.dumps(value, ensure_ascii=False)
    # Half of a surrogate pair, written as "\\ud800", is no character that could be sent.
    return text if text.isascii() or _can_encode(text) else json.dumps(value)


def make_call(name: Any, arguments: Any) -> CallText | None:
    """Return a call; None if the name is no name. Arguments that are text stand as they are."""
    if not isinstance(name, str) or not name or not _can_encode(name):
        return None
    return CallText(name, arguments if isinstance(arguments, str) else dump_arguments(arguments))


def collect_calls(calls: Iterable[CallText | None]) -> list[CallText] | None:
    """Return the calls; None if there is none, or one is malformed."""
    calls = list(calls)
    whole_calls = [call for call in calls if call is not None]
    return whole_calls if calls and len(whole_calls) == len(calls) else None


def overlap_length(text: str, mark: str) -> int:
    """Return how many of the last characters of `text` are the first of `mark`."""
    longest = min(len(text), len(mark) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(mark[:size])), 0)


def _list_types(schema: Mapping[str, Any]) -> set[str]:
    kinds = schema.get("type")
    types = {str(kind) for kind in (cast("list[Any]", kinds) if isinstance(kinds, list) else [kinds]) if kind}
    for choice in [*(schema.get("anyOf") or ()), *(schema.get("oneOf") or ())]:
        types |= _list_types(_as_mapping(choice))
    return types


def _as_mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _can_encode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
