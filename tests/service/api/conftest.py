from __future__ import annotations

from collections.abc import Generator

import httpx
import pytest

from tests.fixtures.service import RunningApi, make_context, run_api, upload


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningApi, None, None]:
    with run_api(make_context(tmp_path_factory.mktemp("api"), max_file_bytes=2_000_000)) as running:
        yield running


@pytest.fixture
def client(api: RunningApi, request: pytest.FixtureRequest) -> Generator[httpx.Client, None, None]:
    """A client of a project of the test's own."""
    with api.client(f"test-{request.node.name}"[:64]) as client:
        yield client


@pytest.fixture
def stranger(api: RunningApi) -> Generator[httpx.Client, None, None]:
    with api.client("stranger") as client:
        yield client


@pytest.fixture
def file_id(client: httpx.Client) -> str:
    return upload(client).json()["id"]
