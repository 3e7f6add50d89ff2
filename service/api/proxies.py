"""Who calls, behind reverse proxies: `X-Forwarded-For` is read if it comes from a proxy that the operator trusts."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Scope

from service.kit.networks import Address, Network, is_within, parse_address


def client_address(scope: Scope, trusted_proxies: Sequence[Network]) -> str | None:
    """Return the caller's address; the connection's own unless a trusted proxy names another.

    Each proxy adds its caller at the end: counted from there, the first that is not a trusted proxy is the caller.
    What is not a well-formed address ends the search: no trusted proxy vouches for what stands before it.
    """
    client = scope.get("client")
    if client is None:
        return None
    nearest = parse_address(client[0])
    if nearest is None:
        return str(client[0])[:64]
    for name in reversed(_parse_forwarded_addresses(scope)):
        if not is_within(nearest, trusted_proxies):
            break
        further = _without_port(name)
        if further is None:
            break
        nearest = further
    return str(nearest)


def _parse_forwarded_addresses(scope: Scope) -> list[str]:
    values = (value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for")
    return [name.strip() for value in values for name in value.split(",")]


def _without_port(name: str) -> Address | None:
    """Read `1.2.3.4`, `1.2.3.4:5`, `::1` or `[::1]:5`."""
    if name.startswith("["):
        inside, end, port = name[1:].partition("]")
        return parse_address(inside) if end and (not port or _is_port(port)) else None
    host, colon, port = name.partition(":")
    if colon and ":" not in port:
        return parse_address(host) if _is_port(f":{port}") else None
    return parse_address(name)


def _is_port(text: str) -> bool:
    return text.startswith(":") and text[1:].isascii() and text[1:].isdigit()
