"""Which addresses of the internet protocol are public, and which others an operator has allowed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC: tuple[Network, ...] = (
    ipaddress.IPv4Network("192.0.0.0/24"),  # protocols' own
    ipaddress.IPv4Network("192.88.99.0/24"),  # relays of 6to4
    ipaddress.IPv6Network("2001::/23"),  # protocols' own, Teredo among them
    ipaddress.IPv6Network("2001:db8::/32"),  # documentation
    ipaddress.IPv6Network("2002::/16"),  # 6to4
    ipaddress.IPv6Network("3fff::/20"),  # documentation
)
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_-]{1,63})*\Z")


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the public internet.

    An IPv4 address in IPv6 clothes counts as the IPv4 address where the clothes are IPv4-mapped or NAT64's; the
    tunnels of 6to4 and Teredo are never public, whatever they lead to.
    """
    address = _unwrapped(address)
    if any(address in network for network in _NOT_PUBLIC if network.version == address.version):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return address in _GLOBAL_UNICAST
    return address.is_global and not address.is_multicast and not address.is_reserved


def _unwrapped(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def parse_address(text: str) -> Address | None:
    """Return the address that a text is, IPv4 in place of an IPv4-mapped one; None if it is no well-formed address."""
    if "%" in text:  # the name of a zone may be any text
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read `10.0.0.0/8, fd00::/8, 127.0.0.1`. Raises ValueError naming the entry that is no network."""
    networks: list[Network] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            raise ValueError(
                f"'{entry[:64]}' is no network such as 10.0.0.0/8 and no address; separate several by commas"
            ) from None
    return tuple(networks)


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Tell whether an address lies in one of the networks."""
    return any(address in network for network in networks if network.version == address.version)


@dataclass(frozen=True)
class AllowedNetworks:
    """Networks and host names that an operator trusts, whether public or not."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `10.0.0.0/8, fd00::/8, hooks.internal`. Raises ValueError naming the entry that is neither."""
        networks: list[Network] = []
        hosts: set[str] = set()
        for entry in filter(None, (part.strip() for part in text.split(","))):
            try:
                networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                name = entry.lower().rstrip(".")
                if not _HOST_NAME.match(name) or name.replace(".", "").isdigit():
                    raise ValueError(
                        f"'{entry[:64]}' is neither a network such as 10.0.0.0/8 nor a host name such as "
                        "hooks.internal; separate several by commas"
                    ) from None
                hosts.add(name)
        return cls(tuple(networks), frozenset(hosts))

    def has_host(self, host: str) -> bool:
        """Tell whether a host is allowed by its name."""
        return host.lower().rstrip(".") in self.hosts

    def permits(self, address: Address) -> bool:
        """Tell whether an address is public or allowed."""
        if is_public(address):
            return True
        return is_within(_unwrapped(address), self.networks)
