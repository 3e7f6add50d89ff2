"""The page of error codes and the code agree: each code that stands there has a row, and each row a code."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import service
from service.api.error_codes import JOB_CODES, REQUEST_CODES, write_error_page
from service.kit.errors import ServiceError
from tests.fixtures.supervised import REPOSITORY

_POSITIONAL = ("TrainerError", "JobFailureReason", "_worker_fault")
"""What takes the code first."""
_COMPOSED = {
    "invalid_{param}": ("invalid_training_file", "invalid_validation_file"),
    "no_{requested_kind}": ("no_adapter", "no_model"),
    "upload_{status}": ("upload_completed", "upload_cancelled", "upload_expired"),
}
"""The codes that are put together, by how they stand in the code."""
_COMMAND_LINE = {"file_error"}
"""Of `burnish-trainer`'s commands that no job runs."""


def _codes_of(node: ast.expr | None) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _codes_of(node.body)
        yield from _codes_of(node.orelse)
    elif isinstance(node, ast.JoinedStr):
        written = "".join(
            str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"
            for part in node.values
            if isinstance(part, ast.Constant | ast.FormattedValue)
        )
        yield from _COMPOSED[written]


def _codes_in(path: Path) -> Iterator[str]:
    """Yield the codes of errors that a file makes: attributes and arguments `code`, and first arguments of errors."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "code" for to in node.targets):
            yield from _codes_of(node.value)
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg == "code":
                    yield from _codes_of(keyword.value)
            if isinstance(node.func, ast.Name) and node.func.id in _POSITIONAL and node.args:
                yield from _codes_of(node.args[0])


def _codes_in_the_code() -> set[str]:
    files = [path for root in ("service", "trainer") for path in (REPOSITORY / root).rglob("*.py")]
    return {code for path in files for code in _codes_in(path)} - _COMMAND_LINE


def test_each_code_has_its_row_and_each_row_its_code() -> None:
    described = set(REQUEST_CODES) | set(JOB_CODES)
    found = _codes_in_the_code()
    assert found - described == set(), "codes without a row in service/api/error_codes.py"
    assert described - found == set(), "rows of codes that no code makes"


def _all_errors(kind: type[ServiceError]) -> Iterator[type[ServiceError]]:
    for below in kind.__subclasses__():
        yield below
        yield from _all_errors(below)


def test_each_error_of_the_service_has_the_status_that_the_page_says() -> None:
    for module in pkgutil.walk_packages(service.__path__, "service."):
        if module.name.endswith(".errors"):
            importlib.import_module(module.name)
    errors = [error for error in _all_errors(ServiceError) if error.code and error.__module__.startswith("service.")]
    assert len(errors) > 40
    wrong = {e.__name__: (e.status, e.code) for e in errors if REQUEST_CODES[e.code or ""].status != str(e.status)}
    assert wrong == {}


@pytest.mark.parametrize("codes", [REQUEST_CODES, JOB_CODES], ids=["requests", "jobs"])
def test_the_page_shows_each_code_with_whole_sentences(codes: dict[str, tuple[str, str, str]]) -> None:
    page = write_error_page()
    for code, (status, cause, remedy) in codes.items():
        assert f"| `{code}` | {status} | {cause} | {remedy} |" in page
        assert (cause[-1], remedy[-1]) == (".", "."), code


def test_the_page_in_the_docs_is_the_one_of_the_code() -> None:
    page = (REPOSITORY / "docs" / "errors.md").read_text(encoding="utf-8")
    assert page == write_error_page(), "docs/errors.md is not what the code says: run make openapi"
