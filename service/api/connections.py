"""How many connections a process has open, and who must go when one more comes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, IPv6Network
from typing import Protocol

from service.kit import metrics
from service.kit.networks import Network, is_within, parse_address
from service.kit.settings import Settings

_KEPT_DESCRIPTORS = 96
"""What the database, the blob store, logs and listening sockets need of the process's limit."""
_DESCRIPTORS_EACH = 2
"""A connection, and a file that it uploads or downloads."""
_LEAST = 8
_GRACE_SECONDS = 1.0
"""How long a new connection has for its first request before another may take its place."""


class EvictableConnection(Protocol):
    """A connection that `OpenConnections` counts and may end to make room."""

    def make_room(self) -> None:
        """End the connection because a new one needs its place."""
        ...


class OpenConnections:
    """The places for connections of one process, all together and by the client's address.

    If all are taken, the connection that has waited for its next request the longest is ended in favour of the new
    one; only if none waits the new one is refused. A connection waits until a request's whole head has come, and again
    from its answer on, so that one that only dribbles is as good as idle.
    """

    def __init__(
        self,
        most: int,
        most_per_address: int,
        trusted: Sequence[Network] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most, self.most_per_address = most, most_per_address
        self._trusted = trusted
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._keys: dict[EvictableConnection, str] = {}
        self._idle = _Idle()
        self._idle_of: dict[str, _Idle] = {}

    @property
    def count(self) -> int:
        """How many places are taken."""
        return self._counts.total()

    def take_place(self, host: str) -> bool:
        """Take a place for a new connection from an address; False if there is none and none can be made."""
        key, trusted = self._key_of_host(host)
        if (
            not trusted
            and self._counts[key] >= self.most_per_address
            and not self._evict_oldest(self._idle_of.get(key))
        ):
            return False
        # After the look at the address: an address that is over its own share must not end other clients' connections.
        if self.count >= self.most and not self._evict_oldest(self._idle):
            return False
        self._counts[key] += 1
        metrics.OPEN_CONNECTIONS.inc()
        return True

    def give_back(self, host: str) -> None:
        """Free the place of a connection that was admitted and never entered."""
        self._free_place(self._key_of_host(host)[0])

    def register_connection(self, connection: EvictableConnection, host: str) -> None:
        """Note the connection that a place was taken for."""
        key, _ = self._key_of_host(host)
        self._keys[connection] = key
        # Otherwise, under a flood, each new connection would end the one before it, and nobody could send a request.
        oldest_end = self._clock() + _GRACE_SECONDS
        self._idle.fresh[connection] = oldest_end
        self._idle_of.setdefault(key, _Idle()).fresh[connection] = oldest_end

    def unregister_connection(self, connection: EvictableConnection) -> None:
        """Free the place of a connection that has ended."""
        key = self._keys.pop(connection, None)
        if key is not None:
            self._forget_idle(connection, key)
            self._free_place(key)

    def note_busy(self, connection: EvictableConnection) -> None:
        """Note that a request is being served."""
        if (key := self._keys.get(connection)) is not None:
            self._forget_idle(connection, key)

    def note_idle(self, connection: EvictableConnection) -> None:
        """Note that the connection waits for a further request."""
        if (key := self._keys.get(connection)) is not None:
            self._idle.kept[connection] = None
            self._idle_of.setdefault(key, _Idle()).kept[connection] = None

    def close_idle(self, most: int) -> int:
        """End connections that wait, the oldest first, `most` at most; return how many."""
        closed = 0
        while closed < most and self._evict_oldest(self._idle):
            closed += 1
        return closed

    def _evict_oldest(self, idle: _Idle | None) -> bool:
        victim = None if idle is None else idle.oldest_connection(self._clock())
        if victim is None:
            return False
        # Freed at once and not when the transport reports its end: the new connection needs the place now.
        self.unregister_connection(victim)
        victim.make_room()
        return True

    def _free_place(self, key: str) -> None:
        self._counts[key] -= 1
        metrics.OPEN_CONNECTIONS.dec()
        if not self._counts[key]:
            del self._counts[key]

    def _forget_idle(self, connection: EvictableConnection, key: str) -> None:
        self._idle.remove_connection(connection)
        of_key = self._idle_of.get(key)
        if of_key is not None:
            of_key.remove_connection(connection)
            if not of_key:
                del self._idle_of[key]

    def _key_of_host(self, host: str) -> tuple[str, bool]:
        """Return what a client's connections are counted under, and whether the client is a trusted proxy."""
        address = parse_address(host)
        if address is None:
            return host, False
        trusted = is_within(address, self._trusted)
        if isinstance(address, IPv6Address):  # one client has all addresses of its network
            return str(IPv6Network((address, 64), strict=False)), trusted
        return str(address), trusted


class _Idle:
    """Connections that wait, the oldest first: those between two requests, and those without a first one."""

    def __init__(self) -> None:
        self.kept: dict[EvictableConnection, None] = {}
        self.fresh: dict[EvictableConnection, float] = {}

    def __bool__(self) -> bool:
        return bool(self.kept or self.fresh)

    def oldest_connection(self, now: float) -> EvictableConnection | None:
        # Those between two requests first: they have had an answer, and their client connects again.
        for connection in self.kept:
            return connection
        for connection, grace_ends in self.fresh.items():
            # The first is the oldest: if its grace is not over, nobody's is.
            return connection if grace_ends <= now else None
        return None

    def remove_connection(self, connection: EvictableConnection) -> None:
        self.kept.pop(connection, None)
        self.fresh.pop(connection, None)


def open_connections(settings: Settings, descriptors: int) -> OpenConnections:
    """Return the places that the settings allow a process that may have so many files open."""
    # Bounded by descriptors as well: at EMFILE the database and the logs would fail, too.
    most = max(_LEAST, min(settings.max_connections, (descriptors - _KEPT_DESCRIPTORS) // _DESCRIPTORS_EACH))
    return OpenConnections(most, settings.max_connections_per_address or max(1, most // 2), settings.proxies)
