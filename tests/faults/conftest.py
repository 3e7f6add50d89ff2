"""The servers that these tests share; they end with the last of them, and take no time from the others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.report import Report
from tests.faults.world import PLAIN, Servers, World, running_world
from tests.fixtures.postgres import PostgresServer, run_postgres
from tests.fixtures.seaweedfs import S3Server, run_seaweedfs


@pytest.fixture(scope="package")
def postgres() -> Iterator[PostgresServer]:
    with run_postgres() as server:
        yield server


@pytest.fixture(scope="package")
def s3() -> Iterator[S3Server]:
    with run_seaweedfs() as server:
        yield server


@pytest.fixture(scope="package")
def cluster_servers(postgres: PostgresServer, s3: S3Server) -> Servers:
    return Servers(postgres, s3)


@pytest.fixture(scope="package")
def cluster(cluster_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world with production's leases, for the tests that leave it whole."""
    folder = tmp_path_factory.mktemp("cluster")
    with running_world(folder, cluster_servers, workers=2, pace=PLAIN, step_seconds=0.1) as world:
        yield world


@pytest.fixture
def report() -> Report:
    return Report()
