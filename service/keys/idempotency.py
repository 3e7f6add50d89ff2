"""`Idempotency-Key`: a creation that is sent again, because its answer was lost, gives the first answer again.

Answers may hold secrets that are shown once: keys, signing secrets. What is kept of one is sealed under a key that
comes from the header as well as from the service's own secret, and the header is not kept, only an HMAC of it: the
database alone, and the service's secret with it, open nothing without the caller's header.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy.orm import Session

from service.keys import repository
from service.kit.errors import Conflict, InvalidRequest
from service.kit.sealing import Sealer, derive_key

T = TypeVar("T", bound=BaseModel)

MAX_LENGTH = 255


class IdempotencyKeyReused(Conflict):
    """The key stands for another request of the last 24 hours."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The Idempotency-Key '{key[:64]}' was used for another request in the last 24 hours: "
            "send a new key with a new request.",
            param="Idempotency-Key",
            code="idempotency_key_reused",
        )


@dataclass(frozen=True)
class Idempotency:
    """What one request asks for: nothing (no key), or to be carried out once."""

    project_id: str
    key: str | None = field(repr=False)
    path: str
    service_secret: bytes = field(repr=False)
    replayed: Callable[[str | None], None]
    """Called, with the object's id, if the answer is an earlier one."""

    def __post_init__(self) -> None:
        key = self.key
        if key is not None and not (0 < len(key) <= MAX_LENGTH and key.isascii() and key.isprintable()):
            raise InvalidRequest(
                f"The header Idempotency-Key must have 1 to {MAX_LENGTH} printable ASCII characters, such as a UUID.",
                param="Idempotency-Key",
            )

    def run_once(self, session: Session, body: Mapping[str, Any], model: type[T], make: Callable[[], T]) -> T:
        """Return `make()`, or the answer that the same key, path and body got before.

        The answer is kept in the caller's transaction, so it exists exactly if the object does. Of two requests at
        the same time the second waits for the first. Raises IdempotencyKeyReused, and whatever `make` raises.
        """
        if self.key is None:
            return make()
        digest, fingerprint = self._hash_text(self.key), self._fingerprint_body(body)
        # Answers may hold new API keys and signing secrets. The header is part of the key, and only its hash is
        # stored.
        sealer = Sealer(derive_key(self.service_secret, b"burnish: kept answers", salt=self.key.encode()))
        owner = f"{self.project_id} {fingerprint}"
        # An insert with a unique key: a second request blocks in it until the first commits or rolls back.
        if repository.reserve_answer(session, self.project_id, digest, fingerprint):
            answer = make()
            repository.keep_answer(session, self.project_id, digest, sealer.seal(answer.model_dump_json(), owner))
            return answer
        kept_answer = repository.find_kept_answer(session, self.project_id, digest)
        if kept_answer is None or kept_answer.answer is None or kept_answer.fingerprint != fingerprint:
            raise IdempotencyKeyReused(self.key)
        answer = model.model_validate_json(sealer.open(kept_answer.answer, owner))
        self.replayed(getattr(answer, "id", None))
        return answer

    def is_kept(self, session: Session) -> bool:
        """Return whether the key stands for an earlier request, the same or another."""
        return (
            self.key is not None
            and repository.find_kept_answer(session, self.project_id, self._hash_text(self.key)) is not None
        )

    def _hash_text(self, text: str) -> str:
        key = derive_key(self.service_secret, b"burnish: idempotency keys")
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    def _fingerprint_body(self, body: Mapping[str, Any]) -> str:
        # The path counts: one key sent to two operations stands for two different requests.
        return self._hash_text(json.dumps([self.path, body], sort_keys=True))
