"""Signing secrets: made at random, kept sealed under a key that comes from the service's own secret."""

from __future__ import annotations

import base64
import secrets

from service.kit.sealing import Sealer, derive_key

_PREFIX = "whsec_"
_SHOWN = len(_PREFIX) + 4


def new_secret() -> str:
    """Return `whsec_` and the base64 of 32 random bytes."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def hint_of(secret: str) -> str:
    """Return what may be shown of a secret: enough to distinguish two."""
    return f"{secret[:_SHOWN]}…"


class Vault(Sealer):
    """Seals the secrets of endpoints, each for its endpoint's id."""

    def __init__(self, service_secret: bytes) -> None:
        super().__init__(derive_key(service_secret, b"burnish: webhook signing secrets"))
