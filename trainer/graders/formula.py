"""The formula of a `multi` grader: numbers, names, + - * / ^ ( ), and seven functions. It is parsed, never run.

Python's parser makes the tree; every node that is not in a short list is refused. All numbers are floats, so that no
power can grow large.
"""

from __future__ import annotations

import ast
import math
import operator
import unicodedata
from collections.abc import Callable, Iterator, Mapping

MAX_LENGTH = 1000
_MAX_DEPTH = 50
_Two = Callable[[float, float], float]
_BINARY: Mapping[type[ast.operator], _Two] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda left, right: left / right,
    ast.Pow: math.pow,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[float], float]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_FUNCTIONS: Mapping[str, tuple[Callable[..., float], int]] = {
    "min": (min, 16),
    "max": (max, 16),
    "abs": (math.fabs, 1),
    "floor": (math.floor, 1),
    "ceil": (math.ceil, 1),
    "exp": (math.exp, 1),
    "sqrt": (math.sqrt, 1),
    "log": (math.log, 1),
}
"""What may be called, and with how many arguments at most."""


class Formula:
    """A formula that was read. `^` is the power, and binds as in mathematics: 2*x^2 is 2·(x²), -x^2 is -(x²)."""

    def __init__(self, text: str) -> None:
        """Read `text`. Raises ValueError, with a sentence."""
        if len(text) > MAX_LENGTH:
            raise ValueError(f"the formula has {len(text)} characters; {MAX_LENGTH} are the most")
        try:
            source = text.strip().replace("^", "**")
            self._tree = ast.parse(source, mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            detail = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply or has a NUL character"
            raise ValueError(f"the formula cannot be read: {detail}") from error
        self.names = frozenset(_collect_names(self._tree, source, 0))
        """The graders that it names."""

    def evaluate_formula(self, rewards: Mapping[str, float]) -> float:
        """Return what it comes to. Raises ValueError if that is not a finite number."""
        values = {normalise_name(name): value for name, value in rewards.items()}
        try:
            result = _evaluate_node(self._tree, values)
        except (ArithmeticError, ValueError) as error:
            raise ValueError(f"the formula has no value for these rewards: {error}") from error
        if not math.isfinite(result):
            raise ValueError(f"the formula comes to {result}, which is not a finite number")
        return result


def normalise_name(name: str) -> str:
    """Return a name as Python's parser has it: identifiers that look alike are one (NFKC)."""
    return unicodedata.normalize("NFKC", name)


def _collect_names(node: ast.expr, source: str, depth: int) -> Iterator[str]:
    """Yield the names of a tree, and raise ValueError at what it must not have."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"the formula is nested more than {_MAX_DEPTH} deep")
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            _require_finite(number)
        case ast.Name(id=name):
            yield name
        case ast.UnaryOp(op=sign, operand=inner) if type(sign) in _UNARY:
            yield from _collect_names(inner, source, depth + 1)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
            yield from _collect_names(left, source, depth + 1)
            yield from _collect_names(right, source, depth + 1)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            most = _FUNCTIONS[name][1]
            if not (2 if most > 1 else 1) <= len(arguments) <= most:
                raise ValueError(f"{name} takes {'one argument' if most == 1 else f'2 to {most} arguments'}")
            for argument in arguments:
                yield from _collect_names(argument, source, depth + 1)
        case _:
            source_text = (ast.get_source_segment(source, node) or "").replace("**", "^")[:60]
            raise ValueError(
                f"{source_text!r} has no place in a formula: use numbers, the graders' names, + - * / ^ ( ) and "
                f"{', '.join(_FUNCTIONS)}"
            )


def _require_finite(number: float) -> float:
    try:
        value = float(number)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise ValueError("a number of the formula is too large")
    return value


def _evaluate_node(node: ast.expr, rewards: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return rewards[name]
        case ast.UnaryOp(op=sign, operand=inner):
            return _UNARY[type(sign)](_evaluate_node(inner, rewards))
        case ast.BinOp(left=left, op=sign, right=right):
            return _BINARY[type(sign)](_evaluate_node(left, rewards), _evaluate_node(right, rewards))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return float(_FUNCTIONS[name][0](*(_evaluate_node(argument, rewards) for argument in arguments)))
        case _:
            raise AssertionError("a node that reading had let in")
