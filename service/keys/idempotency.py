"""`Idempotency-Key`: a creation that is sent again, because its answer was lost, gives the first answer again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy.orm import Session

from service.keys import repository
from service.kit.errors import Conflict, InvalidRequest

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
    key: str | None
    path: str
    replayed: Callable[[str | None], None]
    """Called, with the object's id, where the answer is an earlier one."""

    def __post_init__(self) -> None:
        key = self.key
        if key is not None and not (0 < len(key) <= MAX_LENGTH and key.isascii() and key.isprintable()):
            raise InvalidRequest(
                f"The header Idempotency-Key must have 1 to {MAX_LENGTH} printable ASCII characters, such as a UUID.",
                param="Idempotency-Key",
            )

    def once(self, session: Session, body: Mapping[str, Any], model: type[T], make: Callable[[], T]) -> T:
        """Return `make()`, or the answer that the same key, path and body got before.

        The answer is kept in the caller's transaction, so it exists exactly if the object does. Of two requests at
        the same time the second waits for the first. Raises IdempotencyKeyReused, and whatever `make` raises.
        """
        if self.key is None:
            return make()
        fingerprint = hashlib.sha256(json.dumps([self.path, body], sort_keys=True).encode()).hexdigest()
        if repository.reserve_answer(session, self.project_id, self.key, fingerprint):
            answer = make()
            repository.keep_answer(session, self.project_id, self.key, answer.model_dump(mode="json"))
            return answer
        kept = repository.kept_answer(session, self.project_id, self.key)
        if kept is None or kept.fingerprint != fingerprint:
            raise IdempotencyKeyReused(self.key)
        self.replayed((kept.answer or {}).get("id"))
        return model.model_validate(kept.answer)
