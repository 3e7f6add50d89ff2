from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.storage import Storage, open_storage
from tests.fixtures.seaweedfs import S3Server, run_seaweedfs


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with run_seaweedfs() as server:
        yield server


@pytest.fixture
def s3_prefix() -> str:
    return f"tests/{secrets.token_hex(4)}"


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.integration)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """The contract's subject: the same tests run against each store, in a place of their own."""
    if request.param == "local":
        return open_storage((tmp_path / "blobs 空").as_uri())
    server: S3Server = request.getfixturevalue("s3_server")
    url = server.url_of(request.getfixturevalue("s3_prefix"))
    return open_storage(url, access_key=server.access_key, secret_key=server.secret_key)
