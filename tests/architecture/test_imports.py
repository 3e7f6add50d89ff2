"""The import graph of the trainer, the service and the client has no circle, whatever kind of import closes it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FOLDERS = {
    "trainer": REPOSITORY / "trainer",
    "service": REPOSITORY / "service",
    "burnish": REPOSITORY / "clients" / "python" / "burnish",
}
Graph = Mapping[str, frozenset[str]]


def files_of(package: str) -> dict[str, Path]:
    """Return the package's files by the names of their modules."""
    folder = FOLDERS[package]
    return {_module_name(package, path.relative_to(folder)): path for path in sorted(folder.rglob("*.py"))}


def _module_name(package: str, path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)])


def import_graph(files: Mapping[str, Path]) -> Graph:
    """Return what each module imports of the others: in functions and for type checkers too."""
    return {name: frozenset(_imports(name, path, files)) - {name} for name, path in files.items()}


def _imports(name: str, path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(name, path, node)
            for alias in node.names:
                # `from package import module` is about the module, and not about the package's own file.
                module = f"{origin}.{alias.name}"
                if module in files or origin in files:
                    yield module if module in files else origin


def _origin(name: str, path: Path, node: ast.ImportFrom) -> str:
    """Return the absolute name of what follows `from`."""
    if not node.level:
        return node.module or ""
    here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    return ".".join([*here[: len(here) - node.level + 1], *([node.module] if node.module else [])])


def circles_of(graph: Graph) -> list[list[str]]:
    """Return the groups of modules that reach each other, the largest first."""
    reach = {name: _reachable(graph, name) for name in graph}
    groups = {frozenset(other for other in reach[name] if name in reach[other]) for name in graph}
    return sorted((sorted(group) for group in groups if group), key=len, reverse=True)


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        fresh = graph[waiting.pop()] - found
        found |= fresh
        waiting += fresh
    return found


@pytest.mark.slow
@pytest.mark.parametrize("package", FOLDERS)
def test_no_files_import_each_other_in_a_circle(package: str) -> None:
    assert circles_of(import_graph(files_of(package))) == []


def test_every_kind_of_import_is_seen(tmp_path: Path) -> None:
    sources = {
        "pack": "from pack import leaf",
        "pack.leaf": "from __future__ import annotations",
        "pack.late": "def load():\n    import pack.leaf",
        "pack.typed": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .late import load",
        "pack.inner": "from .. import typed\nfrom . import leaf",
        "pack.inner.deep": "from .. import late\nfrom ..typed import load",
    }
    packages = {"pack", "pack.inner"}
    files: dict[str, Path] = {}
    for name, source in sources.items():
        path = tmp_path.joinpath(*name.split("."))
        files[name] = path / "__init__.py" if name in packages else path.with_suffix(".py")
        files[name].parent.mkdir(parents=True, exist_ok=True)
        files[name].write_text(source, "utf-8")
    files["pack.inner.leaf"] = files["pack.leaf"]
    assert import_graph(files) == {
        "pack": {"pack.leaf"},
        "pack.leaf": set(),
        "pack.late": {"pack.leaf"},
        "pack.typed": {"pack.late"},
        "pack.inner": {"pack.typed", "pack.inner.leaf"},
        "pack.inner.deep": {"pack.late", "pack.typed"},
        "pack.inner.leaf": set(),
    }


def test_a_circle_is_found_through_any_number_of_files() -> None:
    graph = {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("a"), "d": frozenset("a"), "e": frozenset("e")}
    assert circles_of(graph) == [["a", "b", "c"], ["e"]]
