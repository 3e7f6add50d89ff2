"""YAML that people write, read within bounds: aliases that multiply, cycles and deep nests end as a sentence."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

MOST_NODES = 10_000
"""Values of a file, each alias counted with all that it stands for."""
MOST_DEPTH = 32
LONGEST_NUMBER = 100

_TAGS = "tag:yaml.org,2002:"
_JSON = {f"{_TAGS}{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")}
_MERGE = f"{_TAGS}merge"


class YamlFault(Exception):
    """What is wrong with a file, and in which line, counted from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


class _Size(NamedTuple):
    """What a node comes to with everything below it."""

    nodes: int
    depth: int


def import_yaml() -> Any:
    """Return the package: imported late, because most commands need none; Any, because its stubs say nothing."""
    return import_module("yaml")


@cache
def loader_class() -> Any:
    """Return a safe loader that composes values of JSON alone, within the bounds. It raises YamlFault."""
    yaml = import_yaml()

    class Loader(yaml.SafeLoader):
        """Safe; 1e-4 is a number, as in JSON, and a date is text, because JSON has no dates."""

        def __init__(self, stream: Any) -> None:
            yaml.SafeLoader.__init__(self, stream)
            self._bounds = _Bounds()

        def compose_node(self, parent: Any, index: Any) -> Any:
            event: Any = self.peek_event()
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                self._bounds.add_alias(event.anchor, line)
                return yaml.SafeLoader.compose_node(self, parent, index)
            self._bounds.enter_node(event.anchor, line)
            node = yaml.SafeLoader.compose_node(self, parent, index)
            _require_json(node, line)
            self._bounds.leave_node(event.anchor)
            return node

    resolvers_by_first = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_TAGS}timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.yaml_implicit_resolvers = resolvers_by_first
    number = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?[eE][-+]?[0-9]+")
    Loader.add_implicit_resolver(f"{_TAGS}float", number, list("-+0123456789"))
    return Loader


class _Bounds:
    """Counts the values while they are composed, so that a file costs no more than what it may hold."""

    def __init__(self) -> None:
        self._nodes = 0
        self._open: list[_Open] = []
        self._anchors: dict[str, _Size | None] = {}
        """What each anchor stands for; None while that is being read."""

    def enter_node(self, anchor: str | None, line: int) -> None:
        """Begin a value. Raises YamlFault beyond a bound."""
        self._open.append(_Open(self._nodes))
        self._count_nodes(_Size(1, 0), line)
        if anchor is not None:
            self._anchors[anchor] = None

    def leave_node(self, anchor: str | None) -> None:
        """End the value that was begun last."""
        node_size = self._open.pop()
        if self._open:
            self._open[-1].below = max(self._open[-1].below, node_size.below + 1)
        if anchor is not None:
            self._anchors[anchor] = _Size(self._nodes - node_size.before, node_size.below + 1)

    def add_alias(self, anchor: str, line: int) -> None:
        """Count what an alias stands for. Raises YamlFault beyond a bound, and if it stands for itself."""
        if anchor not in self._anchors:
            return  # the composer says so itself
        size = self._anchors[anchor]
        if size is None:
            raise YamlFault(line, f"*{anchor} stands for something that it is a part of.")
        self._count_nodes(size, line)
        self._open[-1].below = max(self._open[-1].below, size.depth)

    def _count_nodes(self, size: _Size, line: int) -> None:
        self._nodes += size.nodes
        if self._nodes > MOST_NODES:
            raise YamlFault(line, f"with what its aliases stand for, the file has more than {MOST_NODES} values.")
        if len(self._open) + size.depth > MOST_DEPTH:
            raise YamlFault(line, f"it is nested too deeply: {MOST_DEPTH} levels are allowed.")


class _Open:
    """A value that is being read."""

    def __init__(self, before: int) -> None:
        self.before = before
        self.below = 0
        """How many levels are below it."""


def _require_json(node: Any, line: int) -> None:
    """Raise YamlFault for a value that JSON has no form for, and for keys that are not text."""
    yaml = import_yaml()
    tag = str(node.tag)
    if tag.startswith(_TAGS) and tag not in _JSON and tag != _MERGE:
        raise YamlFault(line, f"JSON has no form for !!{tag.removeprefix(_TAGS)}.")
    if isinstance(node, yaml.ScalarNode) and tag in (f"{_TAGS}int", f"{_TAGS}float"):
        if len(node.value) > LONGEST_NUMBER:
            raise YamlFault(line, f"a number has more than {LONGEST_NUMBER} characters: write text in quotes.")
        if node.value.lower().lstrip("+-") in (".nan", ".inf"):
            raise YamlFault(line, f"JSON has no form for {node.value}.")
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if key.tag not in (f"{_TAGS}str", _MERGE):
                key_text = f"the key {key.value}" if isinstance(key, yaml.ScalarNode) else "a key"
                raise YamlFault(key.start_mark.line + 1, f"{key_text} is not text: write it in quotes.")
