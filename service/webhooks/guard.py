"""Keeps deliveries on the public internet: a project's webhook must not reach what lies inside the operator's network.

A host is resolved for each delivery, every address of it is checked, and the connection is made to an address that
was checked, so that a second answer of the name service cannot lead elsewhere. `Host`, SNI and the certificate's check
stay those of the URL's host.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any

import httpx

from service.kit.networks import Address, AllowedNetworks, is_platform
from service.kit.settings import Settings
from service.webhooks.resolver import NameResolver

_log = logging.getLogger(__name__)
_PORTS = {"http": 80, "https": 443}

Resolve = Callable[[str, int, str], Awaitable[Sequence[str]]]
"""Gives the numeric addresses of a host for a project; raises OSError or UnicodeError if it has none."""
_PROJECT = "burnish_project"
"""The extension of a request that says which project it is for."""


class AddressRefused(httpx.RequestError):
    """A host leads to where webhooks must not go. The message is a sentence without the address."""


class Unresolvable(httpx.ConnectError):
    """The name service has no such host."""


class WebhookGuard:
    """Decides which addresses deliveries may go to."""

    def __init__(self, allowed_networks: AllowedNetworks, resolve: Resolve | None = None) -> None:
        self._allowed = allowed_networks
        self._resolve = resolve or NameResolver()

    async def addresses_of(self, url: httpx.URL, project_id: str = "") -> Sequence[str]:
        """Return the addresses that a URL's host has now; the lookup counts as the project's.

        Raises AddressRefused, Unresolvable, or TurnsExhausted if too many lookups of the project wait.
        """
        host = url.raw_host.decode("ascii")
        port = url.port or _PORTS[url.scheme]
        try:
            # Resolved once, and the connection goes to these very addresses: a second lookup could give a private one
            # (DNS rebinding).
            addresses = list(dict.fromkeys(await self._resolve(host, port, project_id)))
        except (OSError, UnicodeError) as error:
            raise Unresolvable(f"The host {url.host} has no address: {error}") from error
        is_trusted = self._allowed.has_host(url.host) or self._allowed.has_host(host)
        self._check_addresses(url.host, addresses, is_trusted=is_trusted)
        return addresses

    def _check_addresses(self, host: str, addresses: Sequence[str], *, is_trusted: bool) -> None:
        for text in addresses:
            address = ipaddress.ip_address(text)
            # Before the trust in a host: a host that the operator named may lead to a denied network by now.
            if self._allowed.denies(address):
                _log.warning("the webhook host %s leads to %s: denied", host, text)
                raise AddressRefused(f"The host {host} leads to an address that {_explain_denial(address)}")
            if not is_trusted and not self._allowed.permits(address):
                _log.warning("the webhook host %s leads to %s: refused", host, text)
                raise AddressRefused(
                    f"The host {host} leads to an address that is not public; webhooks go there only if the operator "
                    "names it in BURNISH_WEBHOOK_ALLOWED_NETWORKS"
                )


def _explain_denial(address: Address) -> str:
    if is_platform(address):
        return "is not public, whatever the operator allows: clouds offer it to their own machines alone"
    return "the operator has closed to webhooks by BURNISH_WEBHOOK_DENIED_NETWORKS"


def guard_of(settings: Settings) -> WebhookGuard:
    """Return the guard that the settings ask for, with lookups of its own: one for each event loop is enough."""
    return WebhookGuard(AllowedNetworks.parse(settings.webhook_allowed_networks, settings.webhook_denied_networks))


def on_behalf_of(project_id: str | None) -> dict[str, Any]:
    """Return the extensions of a request for a project."""
    return {_PROJECT: project_id or ""}


class GuardedTransport(httpx.AsyncBaseTransport):
    """Connects only to addresses that the guard has just approved, the first that takes the connection.

    No connection is kept: one to an address must not serve another host of the same address.
    """

    def __init__(self, guard: WebhookGuard, **options: Any) -> None:
        self._guard = guard
        # httpcore pools by the URL's host, which is an address here.
        self._inner = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_keepalive_connections=0), **options)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request with a body that is in memory. Raises as `addresses_of`, and httpx.TransportError."""
        addresses = await self._guard.addresses_of(request.url, request.extensions.get(_PROJECT, ""))
        # All addresses were approved above, so trying the next one needs no further check.
        for address in addresses[:-1]:
            try:
                return await self._inner.handle_async_request(_redirect_to_address(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                _log.debug("%s does not take connections: %s", address, error)
        return await self._inner.handle_async_request(_redirect_to_address(request, addresses[-1]))

    async def aclose(self) -> None:
        """Close what is open."""
        await self._inner.aclose()


def make_guarded_client(guard: WebhookGuard, timeout: float, **options: Any) -> httpx.AsyncClient:
    """Return a client for receivers of projects: guarded, no redirects, no proxy of the environment."""
    options.setdefault("verify", _tls_context())
    return httpx.AsyncClient(transport=GuardedTransport(guard, **options), follow_redirects=False, timeout=timeout)


@cache
def _tls_context() -> ssl.SSLContext:
    """Return one context for all clients: to read the certificates takes tens of milliseconds, under Python's lock."""
    return httpx.create_ssl_context()


def _redirect_to_address(request: httpx.Request, address: str) -> httpx.Request:
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,  # they have the URL's own Host
        content=request.content,
        # The URL now has the address: without this, TLS would ask for and verify a certificate of the address.
        extensions={**request.extensions, "sni_hostname": request.url.raw_host.decode("ascii")},
    )
