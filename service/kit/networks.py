"""Which addresses of the internet protocol are public, and which others an operator has allowed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC: tuple[Network, ...] = (
    ipaddress.IPv4Network("192.0.0.0/24"),  # protocols' own
    ipaddress.IPv4Network("192.88.99.0/24"),  # relays of 6to4
    ipaddress.IPv6Network("2001::/23"),  # protocols' own, Teredo among them
    ipaddress.IPv6Network("2001:db8::/32"),  # documentation
    ipaddress.IPv6Network("2002::/16"),  # 6to4
    ipaddress.IPv6Network("3fff::/20"),  # documentation
)
_PLATFORM: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.169.254",  # metadata: AWS, Azure, Google, Oracle, IBM, DigitalOcean, OpenStack, Hetzner and others
        "169.254.169.253",  # AWS: name service
        "169.254.169.123",  # AWS: time
        "169.254.170.2",  # AWS: credentials of containers (ECS)
        "169.254.170.23",  # AWS: credentials of pods (EKS)
        "fd00:ec2::/32",  # AWS: all of these in IPv6
        "168.63.129.16",  # Azure: the host agent, which counts as public
        "fd20:ce::254",  # Google: metadata
        "199.36.153.4/30",  # Google: restricted.googleapis.com, inside a VPC
        "199.36.153.8/30",  # Google: private.googleapis.com, inside a VPC
        "100.100.100.200",  # Alibaba: metadata
        "169.254.0.23",  # Tencent: metadata
        "192.0.0.192",  # Oracle Classic: metadata
        "161.26.0.0/16",  # IBM: services of the platform, from inside alone
        "166.8.0.0/14",  # IBM: private endpoints of cloud services, from inside alone
        "169.254.42.42",  # Scaleway: metadata
        "fd00:42::42",
        "fd00:a9fe:a9fe::1",  # Akamai (Linode): metadata
        "fe80::a9fe:a9fe",  # OpenStack: metadata
        "192.80.8.124",  # Equinix Metal: metadata
    )
)
"""What clouds offer to their own machines alone: never a receiver, whatever an operator allows."""
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_-]{1,63})*\Z")


def is_public(address: Address) -> bool:
    """Return whether an address is one of the public internet.

    An IPv4 address in IPv6 clothes counts as the IPv4 address if it is IPv4-mapped or NAT64's; the
    tunnels of 6to4 and Teredo are never public, whatever they lead to.
    """
    if is_platform(address):
        return False
    address = _unwrap_address(address)
    if is_within(address, _NOT_PUBLIC):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return address in _GLOBAL_UNICAST
    return address.is_global and not address.is_multicast and not address.is_reserved


def is_platform(address: Address) -> bool:
    """Return whether an address, in any notation, is one that a cloud offers to its own machines alone."""
    return any(is_within(form, _PLATFORM) for form in _address_forms(address))


def _address_forms(address: Address) -> Iterator[Address]:
    """Yield an address and every IPv4 address that it may lead to."""
    yield address
    if not isinstance(address, ipaddress.IPv6Address):
        return
    if address.scope_id is not None:
        yield ipaddress.IPv6Address(int(address))
    number = int(address)
    embedded_addresses = {address.ipv4_mapped, address.sixtofour, *(address.teredo or ())} - {None}
    if address in _NAT64 or address in _NAT64_LOCAL or address in _COMPATIBLE:
        embedded_addresses.add(ipaddress.IPv4Address(number & 0xFFFFFFFF))
    if address in _NAT64_LOCAL:  # RFC 6052: with a prefix of 48, 56 or 64 bits, around eight bits that are zero
        for prefix in (48, 56, 64):
            around = (number >> (88 - prefix)) & 0xFF_FFFF_FFFF
            before = 64 - prefix
            high, low = around >> (40 - before), around & ((1 << (32 - before)) - 1)
            embedded_addresses.add(ipaddress.IPv4Address((high << (32 - before)) | low))
    yield from (form for form in embedded_addresses if form is not None)


def _unwrap_address(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def parse_address(text: str) -> Address | None:
    """Return a text as an address, IPv4 in place of an IPv4-mapped one; None if it is not well-formed."""
    if "%" in text:  # the name of a zone may be any text
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    ipv4_address = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return ipv4_address or address


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read `10.0.0.0/8, fd00::/8, 127.0.0.1`. Raises ValueError naming the entry that is not a network."""
    networks: list[Network] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            raise ValueError(
                f"'{entry[:64]}' is not a network such as 10.0.0.0/8 and not an address; separate several by commas"
            ) from None
    return tuple(networks)


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Return whether an address lies in one of the networks."""
    return any(address in network for network in networks if network.version == address.version)


@dataclass(frozen=True)
class AllowedNetworks:
    """Networks and host names that an operator trusts, whether public or not, and networks that are always closed.

    What is denied stays denied, though an allowed network holds it or an allowed host leads there.
    """

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()
    denied: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, text: str, denied_text: str = "") -> Self:
        """Read `10.0.0.0/8, fd00::/8, hooks.internal`, and `denied_text` as `parse_networks` does.

        Raises ValueError naming the entry that is neither.
        """
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
        return cls(tuple(networks), frozenset(hosts), parse_networks(denied_text))

    def has_host(self, host: str) -> bool:
        """Return whether a host is allowed by its name."""
        return host.lower().rstrip(".") in self.hosts

    def permits(self, address: Address) -> bool:
        """Return whether an address is public or allowed, and not denied."""
        if self.denies(address):
            return False
        return is_public(address) or is_within(_unwrap_address(address), self.networks)

    def denies(self, address: Address) -> bool:
        """Return whether an address is denied whatever is allowed: by the operator, or as a platform's own."""
        return is_platform(address) or any(is_within(form, self.denied) for form in _address_forms(address))
