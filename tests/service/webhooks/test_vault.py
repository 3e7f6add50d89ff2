from __future__ import annotations

import base64

import pytest

from service.kit.sealing import SealBroken
from service.webhooks.vault import Vault, hint_of, new_secret


def test_a_secret_is_32_bytes_and_no_two_are_equal() -> None:
    first, second = new_secret(), new_secret()
    assert first != second
    for secret in (first, second):
        assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
        assert len(hint_of(secret)) < 15
        assert secret.startswith(hint_of(secret)[:-1])


def test_what_is_sealed_opens_again_and_shows_nothing() -> None:
    vault, secret = Vault(b"k" * 32), new_secret()
    first, second = vault.seal(secret, "whe_a"), vault.seal(secret, "whe_a")
    assert first != second
    assert secret not in first
    assert Vault(b"k" * 32).open(first, "whe_a") == secret


@pytest.mark.parametrize("sealed", ["", "AAAA", "not base64", "密"])
def test_text_that_is_not_a_seal_does_not_open(sealed: str) -> None:
    with pytest.raises(SealBroken):
        Vault(b"k" * 32).open(sealed, "whe_a")


def test_a_seal_opens_with_its_own_key_and_for_its_own_endpoint_alone() -> None:
    sealed = Vault(b"k" * 32).seal(new_secret(), "whe_a")
    with pytest.raises(SealBroken):
        Vault(b"x" * 32).open(sealed, "whe_a")
    with pytest.raises(SealBroken):
        Vault(b"k" * 32).open(sealed, "whe_b")
    changed = sealed[:-6] + ("A" if sealed[-6] != "A" else "B") + sealed[-5:]
    with pytest.raises(SealBroken):
        Vault(b"k" * 32).open(changed, "whe_a")
