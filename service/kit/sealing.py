"""Text that says nothing in a database: sealed under a key that comes from the service's own secret."""

from __future__ import annotations

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_KEY_BYTES = 32
_NONCE_BYTES = 12


class SealBroken(Exception):
    """A sealed text does not open: the service's secret has changed, or the row was tampered with."""


def derive_key(secret: bytes, purpose: bytes, salt: bytes | None = None) -> bytes:
    """Return a key of 32 bytes that is the `purpose`'s own (HKDF, RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=salt, info=purpose).derive(secret)


class Sealer:
    """Seals texts with AES-256-GCM. A sealed one opens only for the owner that it was sealed for."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, text: str, owner: str) -> str:
        """Return a text as one that may lie in a database."""
        # A fresh one for each text: with AES-GCM, one nonce under one key twice gives both texts away.
        nonce = os.urandom(_NONCE_BYTES)
        # The owner is authenticated data: a sealed text that is copied into another row does not open.
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, text.encode(), owner.encode())).decode()

    def open(self, sealed_secret: str, owner: str) -> str:
        """Return the text. Raises SealBroken."""
        try:
            data = base64.b64decode(sealed_secret, validate=True)
            return self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], owner.encode()).decode()
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise SealBroken(owner) from error
