"""More requests at once than there are threads and connections: every one is answered in time."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from service.context import open_context
from service.kit.settings import Settings
from tests.fixtures.postgres import new_database
from tests.fixtures.service import RunningApi, migrate, run_api, upload, write_catalog

AT_ONCE = 120


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[RunningApi, None, None]:
    folder = tmp_path_factory.mktemp("many")
    catalog = write_catalog(folder, folder)
    if request.param == "sqlite":
        yield from _served(Settings(data=folder, catalog=catalog))
    else:
        with new_database() as url:
            yield from _served(Settings(data=folder, catalog=catalog, database_url=url, secret_key="k" * 32))


def _served(settings: Settings) -> Generator[RunningApi, None, None]:
    migrate(settings)
    with run_api(open_context(settings)) as api:
        yield api


@pytest.mark.slow
def test_a_burst_is_answered(world: RunningApi) -> None:
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    headers = {"Authorization": f"Bearer {world.key()}"}
    with httpx.Client(base_url=world.url, headers=headers, limits=limits, timeout=25) as client:
        body = {"model": "tiny", "training_file": upload(client).json()["id"]}

        def ask(number: int) -> int:
            if number % 4:
                return client.get("/fine_tuning/jobs").status_code
            return client.post("/fine_tuning/jobs", json=body).status_code

        with ThreadPoolExecutor(AT_ONCE) as threads:
            statuses = set(threads.map(ask, range(3 * AT_ONCE)))
    assert statuses == {200}
