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


CASES = [
    pytest.param(database, attack, id=f"{database}-{attack.name}")
    for database in KINDS
    for attack in _attacks_on(database)
]


@pytest.mark.parametrize(("cluster", "attack"), CASES, indirect=["cluster"], scope="module")
def test_a_quiet_tenant_notices_little_of(attack: type[Attack], cluster: Cluster) -> None:
    finding = cluster.attack(attack)
    keep(finding)
    assert not finding.shortfalls, "\n".join([*finding.shortfalls, *cluster.errors_logged()])


@pytest.mark.skipif(FULL, reason="make abuse looks at the jobs during each attack")
@pytest.mark.parametrize("cluster", KINDS, indirect=True, scope="module")
def test_jobs_end_in_time_amid_all_attacks(cluster: Cluster) -> None:
    late = cluster.find_late_jobs()
    assert not late, "\n".join(late)
