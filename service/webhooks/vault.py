"""Signing secrets: made at random, kept sealed under a key that comes from the service's own secret."""

from __future__ import annotations

import base64
import binascii
import os
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_PREFIX = "whsec_"
_NONCE_BYTES = 12
_SHOWN = len(_PREFIX) + 4


class SealBroken(Exception):
    """A sealed secret does not open: the service's secret has changed, or the row was tampered with."""


def new_secret() -> str:
    """Return `whsec_` and the base64 of 32 random bytes."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def hint_of(secret: str) -> str:
    """Return what may be shown of a secret: enough to tell two apart."""
    return f"{secret[:_SHOWN]}…"


class Vault:
    """Seals secrets with AES-256-GCM. A sealed one opens only for the id that it was sealed for."""

    def __init__(self, service_secret: bytes) -> None:
        kdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"burnish: webhook signing secrets")
        self._cipher = AESGCM(kdf.derive(service_secret))

    def seal(self, secret: str, owner: str) -> str:
        """Return a secret as text that may lie in a database."""
        nonce = os.urandom(_NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, secret.encode(), owner.encode())).decode()

    def open(self, sealed: str, owner: str) -> str:
        """Return the secret. Raises SealBroken."""
        try:
            data = base64.b64decode(sealed, validate=True)
            return self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], owner.encode()).decode()
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise SealBroken(owner) from error
