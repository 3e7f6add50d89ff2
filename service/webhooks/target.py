"""Where a delivery goes and what signs it; the receiver that the settings name is one."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

import httpx

from service.kit.sealing import SealBroken
from service.kit.settings import Settings, SettingsError
from service.tables.webhooks import WebhookEndpointRow
from service.webhooks.vault import Vault

_PREFIX = "whsec_"
_HOW_TO_WRITE_IT = (
    "BURNISH_WEBHOOK_SECRET must be whsec_ and the base64 of 24 to 64 random bytes, "
    'for example "whsec_$(openssl rand -base64 32)".'
)


# A whole URL, or a path with a query as a redirect may have.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+|/[^\s'\"<>?#]*[?#][^\s'\"<>]*")


@dataclass(frozen=True)
class DeliveryTarget:
    """A receiver's URL and the secrets that it shares with this service: one, or during a rotation two.

    None if the service cannot read them any more.
    """

    url: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    endpoint_id: str | None = None
    """Whose endpoint; None for the operator's own, which may lie anywhere."""
    project_id: str | None = None
    """The project that the endpoint belongs to; None for the operator's own."""

    @property
    def shown_url(self) -> str:
        """The URL as it may be kept: the operator's own may hold a secret, which no project and no backup may see."""
        return self.url if self.endpoint_id is not None else without_secrets(self.url)

    def censor_text(self, text: str) -> str:
        """Return a sentence about a try as it may be kept: of the operator's receiver, no URL has its query."""
        if self.endpoint_id is not None:
            return text
        return _URL.sub(lambda match: without_secrets(match[0]), text)


def without_secrets(url: str) -> str:
    """Return a URL without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(a URL that cannot be read)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def target_of(endpoint: WebhookEndpointRow, vault: Vault, now: float) -> DeliveryTarget:
    """Return where a project's endpoint is and what signs for it at `now`."""
    sealed_secrets = [endpoint.secret]
    if endpoint.old_secret is not None and (endpoint.old_secret_until or 0.0) > now:
        sealed_secrets.append(endpoint.old_secret)
    try:
        secrets = tuple(vault.open(secret, endpoint.id) for secret in sealed_secrets)
    except SealBroken:
        secrets = ()
    return DeliveryTarget(endpoint.url, secrets, endpoint.id, endpoint.project_id)


class BadAddress(ValueError):
    """A URL cannot be a receiver's; the message follows the field's name: `is not …`."""


def configured_target(settings: Settings) -> DeliveryTarget | None:
    """Return the settings' receiver, None if there is none. Raises SettingsError if it cannot work."""
    secret = settings.webhook_secret
    if settings.webhook_url is None and secret is None:
        return None
    if settings.webhook_url is None:
        raise SettingsError("BURNISH_WEBHOOK_SECRET is set, but BURNISH_WEBHOOK_URL is not: set both or neither.")
    try:
        check_address(settings.webhook_url)
    except BadAddress as error:
        raise SettingsError(f"BURNISH_WEBHOOK_URL {error}.") from error
    if secret is None:
        raise SettingsError(f"BURNISH_WEBHOOK_URL is set, but there is no secret to sign with. {_HOW_TO_WRITE_IT}")
    _check_secret(secret.get_secret_value())
    return DeliveryTarget(settings.webhook_url, (secret.get_secret_value(),))


def check_address(url: str) -> None:
    """Raise BadAddress unless a URL has the form of a receiver's."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        good = good and bool(httpx.URL(url).host)  # what will be asked to connect reads it the same way
    except (ValueError, httpx.InvalidURL, UnicodeError):
        good = False
        parts = urlsplit("")
    if not good or not url.isprintable() or " " in url:
        raise BadAddress("is not the address of a receiver; it looks like https://example.com/hooks/burnish")
    if "@" in parts.netloc:
        raise BadAddress("holds a user or a password: remove it, the signature is the proof")


def _check_secret(secret: str) -> None:
    try:
        # Strict on purpose: a receiver's decoder may refuse what a lenient one takes.
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or not 24 <= len(key) <= 64:
        raise SettingsError(_HOW_TO_WRITE_IT)
