from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import httpx
import pytest

from tests.fixtures.databases import BOTH, api_on, client_with, project_of
from tests.fixtures.service import RunningApi

SetLimits = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", params=BOTH)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningApi]:
    with api_on(request.param, tmp_path_factory.mktemp("limits"), quota_queued_jobs=50) as running:
        yield running


@pytest.fixture
def client(api: RunningApi, request: pytest.FixtureRequest) -> Generator[httpx.Client]:
    with client_with(api, request.node.name[:64]) as made:
        yield made


@pytest.fixture
def set_limits(client: httpx.Client) -> SetLimits:
    """Set limits of the client's project; return what the API shows then."""

    def change(**limits: Any) -> dict[str, Any]:
        answer = client.post(f"/organization/projects/{project_of(client)}/limits", json=limits)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return change
