"""What the API sends to the engine, which weights are to answer what, and what comes back: a line a chunk."""

from __future__ import annotations

import hashlib
import hmac

from pydantic import BaseModel

from service.chat.schemas import ChatCompletionRequest, Chunk
from service.kit.errors import ServiceError

PATH = "/answers"


class ModelSource(BaseModel):
    """Which model answers: a base, and the result of a job (at its end, or at the checkpoint `step`) on it."""

    base: str
    """An id of the catalog, or `ft:…` for the whole model of an earlier job."""
    project_id: str
    """Whose models they are; the API has checked that the caller may use them."""
    job_id: str | None = None
    step: int | None = None


class EngineQuestion(BaseModel):
    """A request, and the weights that its model's name means."""

    source: ModelSource
    request: ChatCompletionRequest
    project_id: str | None = None
    """The caller's project; None from an API that is older than the engine. The model may be another project's."""

    @property
    def asking_project(self) -> str:
        """The project among which the engine's places are shared out."""
        return self.project_id or self.source.project_id


class EngineRefusal(BaseModel):
    """Why there is no answer, or no more of it."""

    status: int
    type: str
    message: str
    param: str | None
    code: str | None
    retry: bool

    @classmethod
    def from_error(cls, error: ServiceError) -> EngineRefusal:
        """Write an error down."""
        return cls(
            status=error.status,
            type=error.type,
            message=error.shown or error.message,
            param=error.param,
            code=error.code,
            retry=error.retry,
        )


class EngineLine(BaseModel):
    """A line of the answer: one of both."""

    chunk: Chunk | None = None
    refusal: EngineRefusal | None = None


def engine_token(hmac_key: bytes) -> str:
    """Return what API and engine know each other by, without a secret of its own to configure."""
    return hmac.new(hmac_key, b"burnish engine", hashlib.sha256).hexdigest()
