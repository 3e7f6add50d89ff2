"""The cluster of each database, which all attacks on it share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.abuse.cluster import Cluster, running_cluster


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, tiny_base: Path) -> Iterator[Cluster]:
    """The cluster on the database that the test's parameter names."""
    with running_cluster(request.param, tiny_base) as running:
        yield running
