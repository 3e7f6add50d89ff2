"""Running the tokenizer's chat template: a fixed date, settings, and arguments that stay the text they were.

transformers' own `apply_chat_template` writes today's date and parses what a call's arguments are; here the same
environment runs with a date of the caller's and with arguments that `tojson` writes as they were given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any, cast

from jinja2 import Environment, Template, meta
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

RENDER_ERRORS = (
    TemplateError,
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What a template may raise: its own refusals, and the mistakes of a program in which anything may be missing."""

Rendering = dict[str, Any]
"""A message in the form that templates take."""


class CallArguments(dict[str, Any]):
    """A call's arguments as a mapping that remembers the JSON text it was read from."""

    def __init__(self, values: Mapping[str, Any], text: str) -> None:
        super().__init__(values)
        # Behind an underscore, which the sandbox hides: an argument may have any name.
        self._text = text

    @property
    def json_text(self) -> str:
        """The text that the row has."""
        return self._text


class _LiteralNumber(float):
    """A number that is written with the digits that it was read with: `1.10` stays `1.10`."""

    _literal: str

    def __new__(cls, literal: str) -> _LiteralNumber:
        number = super().__new__(cls, literal)
        number._literal = literal
        return number

    def __str__(self) -> str:
        return self._literal

    __repr__ = __str__


def read_arguments(text: str) -> CallArguments | str:
    """Return arguments as a mapping that is written as `text`, or `text` itself if it holds no JSON object."""
    try:
        values: Any = json.loads(text, parse_float=_LiteralNumber)
    except (ValueError, RecursionError):
        return text
    return CallArguments(cast("dict[str, Any]", values), text) if isinstance(values, dict) else text


class TemplateRunner:
    """The chat template of a tokenizer, ready to run. `settings` are variables such as `enable_thinking`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, day: date) -> None:
        self.tokenizer = tokenizer
        self.settings: dict[str, Any] = {}
        self.as_parts = False
        """Whether contents are given as lists of parts, which templates of models that see expect."""
        self.empty_tools: list[dict[str, Any]] | None = None
        """What templates take for no tools."""
        moment = datetime.combine(day, time())
        self._environment = _make_environment()
        self._globals = {"strftime_now": moment.strftime}
        self._compiled: dict[str, Template] = {}

    @property
    def source(self) -> str:
        """The template's text; of several, the one for conversations with tools."""
        return self.tokenizer.get_chat_template(None, [{}] if isinstance(self.tokenizer.chat_template, dict) else None)

    @property
    def variables(self) -> set[str]:
        """The names that the template reads without setting them itself."""
        return meta.find_undeclared_variables(self._environment.parse(self.source))

    def run_template(
        self, messages: Sequence[Rendering], tools: Sequence[dict[str, Any]] | None, *, prompt: bool = False
    ) -> str:
        """Return the conversation as text; `prompt` adds the opening of the assistant's next turn.

        Raises one of RENDER_ERRORS.
        """
        source = self.tokenizer.get_chat_template(None, cast(Any, tools))
        template = self._compiled.get(source)
        if template is None:
            template = self._environment.from_string(source, globals=self._globals)
            self._compiled[source] = template
        variables = {**self.tokenizer.special_tokens_map, **self.settings}
        return template.render(
            messages=[self._copy_message(message) for message in messages],
            tools=list(tools) if tools else self.empty_tools,
            documents=None,
            add_generation_prompt=prompt,
            **variables,
        )

    def _copy_message(self, message: Rendering) -> Rendering:
        if not self.as_parts:
            return dict(message)
        return {**message, "content": [{"type": "text", "text": message["content"]}] if message["content"] else []}


def _make_environment() -> Environment:
    # transformers has no public way to its sandbox, whose globals and tags templates are written for.
    compile_template: Any = chat_template_utils._compile_jinja_template  # pyright: ignore[reportPrivateUsage]
    environment: Environment = compile_template("").environment.overlay()
    environment.filters = {**environment.filters, "tojson": _write_json}
    return environment


def _write_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as transformers' filter does, with arguments and numbers as they were given."""
    literals: dict[str, str] = {}
    plain = _replace_literals(value, literals)
    text = json.dumps(plain, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    for name, literal in literals.items():
        text = text.replace(f'"{name}"', literal)
    return text


def _replace_literals(value: Any, literals: dict[str, str]) -> Any:
    if isinstance(value, CallArguments):
        return _add_literal(value.json_text, literals)
    if isinstance(value, _LiteralNumber):
        return _add_literal(str(value), literals)
    if isinstance(value, dict):
        return {key: _replace_literals(item, literals) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_replace_literals(item, literals) for item in cast("list[Any]", value)]
    return value


def _add_literal(literal: str, literals: dict[str, str]) -> str:
    name = f"burnishliteral{len(literals)}x"
    literals[name] = literal
    return name
