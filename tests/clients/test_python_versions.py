"""The client is for Python 3.10 and newer, also where the tests run on a newer one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "clients" / "python"
OLDEST = re.search(r'requires-python = ">=3\.(\d+)"', (CLIENT / "pyproject.toml").read_text("utf-8"))


@pytest.mark.parametrize("path", sorted((CLIENT / "burnish").rglob("*.py")), ids=lambda path: path.name)
def test_the_oldest_version_can_read_it(path: Path) -> None:
    assert OLDEST is not None
    assert int(OLDEST[1]) == 10
    ast.parse(path.read_text("utf-8"), feature_version=(3, int(OLDEST[1])))
