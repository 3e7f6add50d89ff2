"""Calls as Python: `[weather(city="北京", days=3)]`. Llama 3.2 and 4 write them without marks, LFM2 between two."""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

from trainer.engine.answer_format.grammar import CallForm, CallMarks
from trainer.engine.answer_format.parts import CallText, OfferedTools, collect_calls, make_call

_LONGEST = 1 << 18
"""Characters of source that are compiled at most."""
_LONGEST_UNESCAPED = 1 << 13
"""Characters of source in which quotes that are not escaped are looked for: that takes quadratic time."""
# A quote ends a text where the next argument, the next call or the end follows.
_QUOTED = re.compile(r"(?<=[\w]=)'(.*?)'(?=\s*(?:,\s*\w+=|\)\s*(?:,\s*[\w.]+\(|\]?\s*\Z)))", re.DOTALL)
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "none": None}


def read_python_calls(body: str, _tools: OfferedTools) -> list[CallText] | None:
    """Read a call, or a list of calls, with arguments by name alone."""
    if len(body) > _LONGEST:
        return None
    calls = _read_source(body)
    if calls is None and len(body) <= _LONGEST_UNESCAPED:
        # Some of LFM2's templates put quotes around text and escape nothing in it.
        calls = _read_source(_QUOTED.sub(lambda match: repr(match[1]), body))
    return calls


def _read_source(source: str) -> list[CallText] | None:
    try:
        with warnings.catch_warnings():
            # An escape that Python does not know is the model's matter.
            warnings.simplefilter("ignore")
            tree = ast.parse(source.strip(), mode="eval").body
        nodes = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
        return collect_calls(map(_read_call, nodes))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _read_call(node: ast.expr) -> CallText | None:
    if not isinstance(node, ast.Call) or node.args:
        return None
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            return None
        arguments[keyword.arg] = _read_value(keyword.value)
    return make_call(ast.unparse(node.func) if _is_dotted_name(node.func) else None, arguments)


def _is_dotted_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_dotted_name(node.value))


def _read_value(node: ast.expr) -> Any:
    """Return a literal's value. Raises ValueError for anything that is computed."""
    match node:
        case ast.Constant(value=str() | int() | float() | bool() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Name(id=name) if name in _WORDS:
            return _WORDS[name]
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_read_value(element) for element in elements]
        case ast.Dict(keys=keys, values=values):
            return {_read_key(key): _read_value(value) for key, value in zip(keys, values, strict=True)}
        case _:
            raise ValueError("not a literal")


def _read_key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise ValueError("a key that is no text")


PYTHON_FORMS = (
    CallForm("lfm2", (CallMarks("<|tool_call_start|>", ("<|tool_call_end|>",), read_python_calls),)),
    CallForm("llama4", (CallMarks("<|python_start|>", ("<|python_end|>",), read_python_calls),)),
    CallForm("pythonic", (CallMarks("[", (), read_python_calls, at_start=True),)),
)
