"""Tables, columns and states are named by the classes that own them, so that a type checker sees a wrong name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.kit.db import Base
from service.migrations.tables import TABLES
from service.tables.exports import ExportStatus
from service.tables.jobs import JobState
from service.tables.uploads import UploadStatus

SERVICE = Path(__file__).parents[2] / "service"
BY_STRING = {"table", "column", "literal_column"}
"""SQLAlchemy's ways to name a table or a column by a string."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Yield the service's modules; its migrations are history and name what there was."""
    for path in sorted(SERVICE.rglob("*.py")):
        name = path.relative_to(SERVICE).as_posix()
        if not name.startswith("migrations/versions/"):
            yield name, ast.parse(path.read_text("utf-8"))


@pytest.mark.slow
def test_no_table_and_no_column_is_named_by_a_string() -> None:
    found = [
        f"{name}: {alias.name}"
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sqlalchemy"
        for alias in node.names
        if alias.name in BY_STRING
    ]
    assert found == []


def test_no_statement_names_a_table_in_its_text() -> None:
    """Of SQL as text the service has what no class can say: `SELECT 1`, a lock, PRAGMAs, triggers."""
    names = {table.name for table in Base.metadata.sorted_tables}
    found = [
        f"{name}: {text}"
        for name, tree in sources()
        for text in sql_texts(tree)
        if names & set(text.replace("(", " ").split())
    ]
    assert found == []


def sql_texts(tree: ast.Module) -> Iterator[str]:
    """Yield what is handed to `text(…)` and `exec_driver_sql(…)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node) in ("text", "exec_driver_sql"):
            yield from (item.value for item in ast.walk(node) if _is_text(item))


def _called(node: ast.Call) -> str | None:
    return getattr(node.func, "id", getattr(node.func, "attr", None))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_no_state_is_compared_with_a_string() -> None:
    states = {*JobState, *UploadStatus, *ExportStatus}
    found = [
        f"{name}:{node.lineno}"
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and isinstance(node.left, ast.Attribute)
        and node.left.attr in ("state", "status")
        and any(isinstance(item, ast.Constant) and item.value in states for item in node.comparators)
    ]
    assert found == []


def test_the_migrations_know_every_row_class() -> None:
    assert {mapper.class_ for mapper in Base.registry.mappers} == set(TABLES)
