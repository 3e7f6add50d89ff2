"""The file by which clients on this machine find the service and its first key."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from service.cli.client_file import write_client_file
from service.context import Context
from tests.fixtures.service import make_context
from tests.service.cli.observed import read_client_file


@pytest.fixture
def first_start(tmp_path: Path) -> Any:
    context = make_context(tmp_path)
    yield context
    context.db.close()


def test_the_client_file_keeps_its_key_and_follows_the_port(first_start: Context, tmp_path: Path) -> None:
    token = write_client_file(first_start, "http://127.0.0.1:8000/v1")
    assert read_client_file(tmp_path) == {"base_url": "http://127.0.0.1:8000/v1", "api_key": token}
    assert stat.S_IMODE((tmp_path / "client.json").stat().st_mode) == 0o600
    (tmp_path / "client.json").chmod(0o644)
    assert write_client_file(first_start, "http://127.0.0.1:9000/v1") is None
    assert read_client_file(tmp_path) == {"base_url": "http://127.0.0.1:9000/v1", "api_key": token}
    assert stat.S_IMODE((tmp_path / "client.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content", [None, "", "[1]", '{"api_key": 5}', '{"api_key": "burnish-foreign-密钥"}', "\ufffd{"]
)
def test_a_client_file_that_is_missing_or_foreign_gets_a_new_key(
    first_start: Context, tmp_path: Path, content: str | None
) -> None:
    old = write_client_file(first_start, "http://127.0.0.1:8000/v1")
    if content is None:
        (tmp_path / "client.json").unlink()
    else:
        (tmp_path / "client.json").write_text(content, encoding="utf-8")
    new = write_client_file(first_start, "http://127.0.0.1:8000/v1")
    assert new is not None
    assert new != old
    assert read_client_file(tmp_path)["api_key"] == new
