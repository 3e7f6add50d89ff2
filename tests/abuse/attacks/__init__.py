"""The attacks, by name."""

from __future__ import annotations

from tests.abuse.attacks import bodies, connections, datasets, graders, reads, webhooks, work
from tests.abuse.attacks.base import Attack

ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack
    for attack in (
        *bodies.STRANGERS,
        *connections.STRANGERS,
        *bodies.TENANTS,
        *datasets.ALL,
        *reads.ALL,
        *graders.ALL,
        *work.ALL,
        *webhooks.ALL,
    )
}
