from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest

from service.kit.networks import AllowedNetworks, is_public, is_within, parse_address, parse_networks
from service.kit.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "192.0.0.9",
        "192.88.99.1",
        "::",
        "::1",
        "::127.0.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd12:3456::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
        "100::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "2002:808:808::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::8.8.8.8",
    ],
)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))
    assert not AllowedNetworks().permits(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_what_is_public(address: str) -> None:
    assert is_public(ip_address(address))


def test_an_operator_allows_networks_and_hosts() -> None:
    allowed = AllowedNetworks.parse(" 10.1.0.0/16, 192.168.7.9 ,fd00::/8,, Hooks.Internal. ")
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "192.168.7.9", "fd00::1", "8.8.8.8"):
        assert allowed.permits(ip_address(address))
    for address in ("10.2.0.1", "192.168.7.10", "fe80::1", "127.0.0.1"):
        assert not allowed.permits(ip_address(address))
    assert allowed.has_host("hooks.INTERNAL")
    assert not allowed.has_host("other.internal")


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "300.1.1.1", "http://hooks", "a b", "主机", "-x"])
def test_anything_else_is_refused_by_its_name(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_WEBHOOK_ALLOWED_NETWORKS", f"10.0.0.0/8,{entry}")
    with pytest.raises(SettingsError, match=r"BURNISH_WEBHOOK_ALLOWED_NETWORKS: '.*' is neither a network"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::FFFF:10.1.2.3", "10.1.2.3"),
        ("2001:DB8:0::1", "2001:db8::1"),
        *((text, None) for text in ("", "10.1.2", "010.1.2.3", " 10.1.2.3", "fe80::1%eth0", "主机", "1", "10.1.2.3/8")),
    ],
)
def test_an_address_is_well_formed_or_none(text: str, expected: str | None) -> None:
    found = parse_address(text)
    assert (found and str(found)) == expected


def test_networks_are_read_and_hold_addresses_of_their_own_kind() -> None:
    networks = parse_networks(" 10.0.0.0/8,fd00::/8, 192.0.2.1,")
    assert [is_within(ip_address(text), networks) for text in ("10.9.9.9", "fd12::1", "192.0.2.1", "192.0.2.2")] == [
        True,
        True,
        True,
        False,
    ]
    assert parse_networks("") == ()
    with pytest.raises(ValueError, match=r"'proxy\.internal' is not a network"):
        parse_networks("proxy.internal")


PLATFORM = {
    "AWS": "169.254.169.254",
    "AWS, name service": "169.254.169.253",
    "AWS, IPv6": "fd00:ec2::254",
    "AWS, containers": "169.254.170.2",
    "AWS, pods": "169.254.170.23",
    "Azure": "168.63.129.16",
    "Google, IPv6": "fd20:ce::254",
    "Alibaba": "100.100.100.200",
    "Tencent": "169.254.0.23",
    "Oracle Classic": "192.0.0.192",
    "IBM": "161.26.0.10",
    "IBM, private endpoints": "166.9.14.5",
    "Scaleway": "fd00:42::42",
    "Equinix": "192.80.8.124",
}


@pytest.mark.parametrize("address", PLATFORM.values(), ids=PLATFORM)
def test_what_a_cloud_offers_to_its_machines_is_denied_though_its_network_is_allowed(address: str) -> None:
    assert not is_public(ip_address(address))
    for allowed in (AllowedNetworks(), AllowedNetworks.parse(f"0.0.0.0/0, ::/0, {address}")):
        assert not allowed.permits(ip_address(address))
        assert allowed.denies(ip_address(address))


def clothes_of(plain: IPv4Address) -> dict[str, str]:
    """The IPv6 addresses that may lead to an IPv4 address."""
    number = int(plain)
    high, low = number >> 16, number & 0xFFFF
    inverted = number ^ 0xFFFFFFFF
    return {
        "mapped": f"::ffff:{plain}",
        "compatible": f"::{plain}",
        "NAT64": f"64:ff9b::{high:x}:{low:x}",
        "local NAT64 of 96 bits": f"64:ff9b:1:5::{high:x}:{low:x}",
        "local NAT64 of 48 bits": f"64:ff9b:1:{high:x}:{low >> 8:x}:{(low & 0xFF) << 8:x}::",
        "6to4": f"2002:{high:x}:{low:x}::1",
        "Teredo, its server": f"2001:0:{high:x}:{low:x}::1",
        "Teredo, its client": f"2001:0:808:808:0:0:{inverted >> 16:x}:{inverted & 0xFFFF:x}",
        "with a zone": f"::ffff:{plain}%1",
    }


@pytest.mark.parametrize("form", clothes_of(IPv4Address("1.2.3.4")))
@pytest.mark.parametrize("plain", ["168.63.129.16", "203.0.113.77"])
def test_denied_addresses_stay_so_in_ipv6_clothes(plain: str, form: str) -> None:
    wrapped = ip_address(clothes_of(IPv4Address(plain))[form])
    allowed = AllowedNetworks.parse("::/0, 0.0.0.0/0", denied_text="203.0.113.0/24")
    assert allowed.denies(wrapped)
    assert not allowed.permits(wrapped)


def test_an_operator_denies_networks_that_are_public_or_allowed() -> None:
    allowed = AllowedNetworks.parse("10.0.0.0/8", denied_text="10.9.0.0/16, 8.8.8.0/24, 2606:4700::/32")
    for address in ("10.9.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"):
        assert not allowed.permits(ip_address(address))
    for address in ("10.1.1.1", "8.8.4.4", "2606:4701::1"):
        assert allowed.permits(ip_address(address))


def test_a_denial_that_is_not_a_network_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_WEBHOOK_DENIED_NETWORKS", "10.0.0.0/8,内网.example")
    with pytest.raises(SettingsError, match=r"BURNISH_WEBHOOK_DENIED_NETWORKS: '内网.example' is not a network"):
        load_settings()
