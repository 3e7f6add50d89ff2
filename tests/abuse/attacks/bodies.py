"""Bodies of JSON that are small to send and dear to read, for every operation that takes one."""

from __future__ import annotations

import asyncio
import json
import re
from abc import abstractmethod

from tests.abuse.attacks.base import Attack


class Bodies(Attack):
    """Sends one body to every `POST` in turn."""

    async def prepare(self) -> None:
        """Make the requests."""
        paths = (await self.order("GET", "/openapi.json"))["paths"]
        posts = [re.sub(r"\{[^}]+\}", "x", path) for path, operations in paths.items() if "post" in operations]
        body = self.body()
        self._requests = [self.maker.request("POST", path, body) for path in posts]

    async def run(self, stop: asyncio.Event) -> None:
        """Send them."""
        await self.repeat(stop, lambda number: self._requests[number % len(self._requests)], at_once=8)

    @abstractmethod
    def body(self) -> bytes:
        """Return the body."""


class WideBodies(Bodies):
    name = "one long key, many zeros"
    description = "121 kB of JSON, one key of 60,000 characters with 30,000 zeros, to every POST"

    def body(self) -> bytes:
        """Return a body that is wrong as often as it has zeros, with the key in the place of each."""
        return json.dumps({"A" * 60_000: [0] * 30_000}, separators=(",", ":")).encode()


class ManyKeys(Bodies):
    name = "80,000 unknown keys"
    description = "a body with 80,000 keys that no operation knows, to every POST"

    def body(self) -> bytes:
        """Return a body under 1 MiB."""
        return json.dumps({f"k{number}": 0 for number in range(80_000)}, separators=(",", ":")).encode()


class DeepNesting(Bodies):
    name = "deep nesting"
    description = "500,000 arrays within each other, and 100,000 objects, to every POST"

    def body(self) -> bytes:
        """Return arrays in an object that the operation might look into."""
        return b'{"metadata":' + b"[" * 350_000 + b'{"a":' * 20_000 + b"0" + b"}" * 20_000 + b"]" * 350_000 + b"}"


class StrangersWideBodies(WideBodies):
    name = f"{WideBodies.name}, without a key"
    by = "stranger"
    short = True


class StrangersManyKeys(ManyKeys):
    name = f"{ManyKeys.name}, without a key"
    by = "stranger"


class StrangersDeepNesting(DeepNesting):
    name = f"{DeepNesting.name}, without a key"
    by = "stranger"


class TenantsWideBodies(WideBodies):
    pass


class TenantsManyKeys(ManyKeys):
    short = True


class TenantsDeepNesting(DeepNesting):
    pass


STRANGERS = (StrangersWideBodies, StrangersManyKeys, StrangersDeepNesting)
TENANTS = (TenantsWideBodies, TenantsManyKeys, TenantsDeepNesting)
