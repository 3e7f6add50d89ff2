"""Names can be searched: few functions have one word for a name, and a class name means one thing."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.supervised import REPOSITORY

_ROOTS = ("service", "trainer", "clients/python/burnish")
_MOST_ONE_WORD = 0.16
"""The share of functions with one word for a name: what it was when this was written. It may only fall."""
_PARTICIPLE = re.compile(
    r"(?!feed|need|seed|embed)[a-z]+ed(_|$)|(found|given|kept|made|sent|shown|told|taken|known)(_|$)"
)
_MOST_PARTICIPLES = 0.01
"""The share of functions, properties left out, with a name that begins with a participle. It may only fall."""
_NOT_NAMES = frozenset(
    {
        "asked", "carried", "found", "given", "gone", "held", "kept", "known", "left", "made", "named", "said", "seen",
        "shown", "taken", "told", "wanted",
    }
)  # fmt: skip
_MOST_NOT_NAMES = 131
"""How many parameters and assignments bear one of these. It may only fall."""
_ON_THE_WIRE = {
    "AdapterTargets", "Budget", "ChatCompletion", "DataPreview", "ExpiresAfter", "FunctionDelta", "GraderRun",
    "JobExpiry", "LabelModelGrader", "LayerGroup", "Logprobs", "MemoryEstimate", "MultiGrader", "PythonGrader",
    "Resources", "SampleRow", "SampleToken", "ScoreModelGrader", "StreamOptions", "StringCheckGrader",
    "TextSimilarityGrader", "TimeEstimate", "TokenLogprob", "ToolCall", "ToolCallDelta", "TopLogprob",
}  # fmt: skip
"""What the server sends and the client reads has one name on both sides."""
_TWICE = {"ModelNotReady", "Problem", "RankedResponse"}
"""Names that stand twice for another reason: none may come to them."""


def _trees() -> Iterator[tuple[Path, ast.Module]]:
    for root in _ROOTS:
        for path in sorted((REPOSITORY / root).rglob("*.py")):
            if "versions" not in path.parts:
                yield path, ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_class_name_stands_once() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(REPOSITORY)))
    twice = {name: where for name, where in places.items() if len(where) > 1 and name not in _ON_THE_WIRE | _TWICE}
    assert twice == {}, "class names that stand twice"


@pytest.mark.slow
def test_few_functions_have_one_word_for_a_name() -> None:
    names = [
        node.name
        for _, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("__")
    ]
    one_word = [name for name in names if "_" not in name.strip("_")]
    share = len(one_word) / len(names)
    assert share <= _MOST_ONE_WORD, f"{len(one_word)} of {len(names)} functions"


@pytest.mark.slow
def test_few_functions_begin_with_a_participle() -> None:
    """`fetch_expired_files`, not `expired_files`. A property may be a state: `lease.lost`."""
    names = [
        node.name
        for _, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("__")
        and not any(isinstance(item, ast.Name) and item.id.endswith("property") for item in node.decorator_list)
    ]
    participles = [name for name in names if _PARTICIPLE.match(name.lstrip("_"))]
    assert len(participles) / len(names) < _MOST_PARTICIPLES, participles


@pytest.mark.slow
def test_few_variables_are_named_by_a_participle() -> None:
    """`hyperparameters`, not `given`: a name says what the thing is."""
    places = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno}"
        for path, tree in _trees()
        for node in ast.walk(tree)
        if (isinstance(node, ast.arg) and node.arg in _NOT_NAMES)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in _NOT_NAMES)
    ]
    assert len(places) <= _MOST_NOT_NAMES, places
