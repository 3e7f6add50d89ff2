"""A stranger and a hostile tenant attack; a quiet tenant goes on with its work, and notices little."""

from __future__ import annotations

import pytest

from tests.abuse.attacks import ATTACKS
from tests.abuse.attacks.base import Attack
from tests.abuse.cluster import Cluster
from tests.abuse.report import keep
from tests.abuse.scale import FULL, TEST_SECONDS
from tests.fixtures.roles import KINDS, Kind

DATABASES = KINDS if FULL else (KINDS[-1],)
"""The short form attacks PostgreSQL alone: a cluster takes as much time as the attacks on it."""
pytestmark = [pytest.mark.abuse, pytest.mark.timeout(TEST_SECONDS)]


Attacks = tuple[type[Attack], ...]


def _groups_of_attacks() -> list[Attacks]:
    """Return the attacks that come together, by turns. The full form runs each alone.

    The short one runs a sample of them, all together: it finds what fails or hangs.
    """
    if FULL:
        return [(attack,) for attack in ATTACKS.values()]
    return [tuple(attack for attack in ATTACKS.values() if attack.short)]


# Pytest runs cases with an equal parameter of this scope one after the other. A parameter that two databases had in
# common would start their clusters in turns, again and again: so each case names its database too.
CASES = [
    pytest.param(database, (database, attacks), id=f"{database}-{' and '.join(attack.name for attack in attacks)}")
    for database in DATABASES
    for attacks in _groups_of_attacks()
]


@pytest.mark.parametrize(("cluster", "case"), CASES, indirect=["cluster"], scope="module")
def test_a_quiet_tenant_notices_little_of(case: tuple[Kind, Attacks], cluster: Cluster) -> None:
    findings = cluster.attack(case[1])
    for finding in findings:
        keep(finding)
    shortfalls = [f"{finding.attack.name}: {fault}" for finding in findings for fault in finding.shortfalls]
    assert not shortfalls, "\n".join([*shortfalls, *cluster.errors_logged()])


@pytest.mark.skipif(FULL, reason="make abuse looks at the jobs during each attack")
@pytest.mark.parametrize("cluster", DATABASES, indirect=True, scope="module")
def test_jobs_end_in_time_amid_all_attacks(cluster: Cluster) -> None:
    late = cluster.find_late_jobs()
    assert not late, "\n".join(late)
