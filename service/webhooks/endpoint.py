"""The configured endpoint: where events go and what signs them."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from service.kit.settings import Settings, SettingsError

_PREFIX = "whsec_"
_HOW_TO_WRITE_IT = (
    "BURNISH_WEBHOOK_SECRET must be whsec_ and the base64 of 24 to 64 random bytes, "
    'for example "whsec_$(openssl rand -base64 32)".'
)


@dataclass(frozen=True)
class Endpoint:
    """A receiver's URL and the secret that it shares with this service."""

    url: str
    secret: str = field(repr=False)


def endpoint_from(settings: Settings) -> Endpoint | None:
    """Return the configured endpoint, None where there is none. Raises SettingsError where it cannot work."""
    secret = settings.webhook_secret
    if settings.webhook_url is None and secret is None:
        return None
    if settings.webhook_url is None:
        raise SettingsError("BURNISH_WEBHOOK_SECRET is set, but BURNISH_WEBHOOK_URL is not: set both or neither.")
    _check_url(settings.webhook_url)
    if secret is None:
        raise SettingsError(f"BURNISH_WEBHOOK_URL is set, but there is no secret to sign with. {_HOW_TO_WRITE_IT}")
    _check_secret(secret.get_secret_value())
    return Endpoint(settings.webhook_url, secret.get_secret_value())


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
        parts = urlsplit("")
    if not good or not url.isprintable() or " " in url:
        raise SettingsError(
            "BURNISH_WEBHOOK_URL is not the address of a receiver; it looks like https://example.com/hooks/burnish."
        )
    if "@" in parts.netloc:
        raise SettingsError("BURNISH_WEBHOOK_URL holds a user or a password: remove it, the signature is the proof.")


def _check_secret(secret: str) -> None:
    try:
        # Strict on purpose: a receiver's decoder may refuse what a lenient one takes.
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or not 24 <= len(key) <= 64:
        raise SettingsError(_HOW_TO_WRITE_IT)
