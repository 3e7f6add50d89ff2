"""A stranger and a hostile tenant attack; a quiet tenant goes on with its work, and notices little."""

from __future__ import annotations

import pytest

from tests.abuse.attacks import ATTACKS
from tests.abuse.attacks.base import Attack
from tests.abuse.cluster import Cluster
from tests.abuse.report import keep
from tests.abuse.scale import FULL, TEST_SECONDS
from tests.fixtures.roles import KINDS, Kind

pytestmark = [pytest.mark.abuse, pytest.mark.timeout(TEST_SECONDS)]


def _attacks_on(database: Kind) -> list[type[Attack]]:
    """Return the attacks of this form: the short one divides a sample of them among the databases."""
    if FULL:
        return list(ATTACKS.values())
    sample = [attack for attack in ATTACKS.values() if attack.short]
    return sample[KINDS.index(database) :: len(KINDS)]


# Pytest runs cases with an equal parameter of this scope one after the other. A parameter that two databases had in
# common would start their clusters in turns, again and again: so each case names its database too.
CASES = [
    pytest.param(database, (database, attack), id=f"{database}-{attack.name}")
    for database in KINDS
    for attack in _attacks_on(database)
]


@pytest.mark.parametrize(("cluster", "case"), CASES, indirect=["cluster"], scope="module")
def test_a_quiet_tenant_notices_little_of(case: tuple[Kind, type[Attack]], cluster: Cluster) -> None:
    finding = cluster.attack(case[1])
    keep(finding)
    assert not finding.shortfalls, "\n".join([*finding.shortfalls, *cluster.errors_logged()])


@pytest.mark.skipif(FULL, reason="make abuse looks at the jobs during each attack")
@pytest.mark.parametrize("cluster", KINDS, indirect=True, scope="module")
def test_jobs_end_in_time_amid_all_attacks(cluster: Cluster) -> None:
    late = cluster.find_late_jobs()
    assert not late, "\n".join(late)
