"""The rules of chat: which model a name means, and who answers for it."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.chat.engine import Engine
from service.chat.errors import ChatUnavailable, ModelNotReady, TooManyTokens
from service.chat.protocol import ModelSource
from service.chat.schemas import ChatCompletionRequest
from service.context import Context
from service.jobs import references
from service.keys.service import Principal
from service.kit.errors import InvalidRequest
from service.kit.settings import Settings
from service.models.errors import ModelNotFound

_EARLIER = ("ft:", "ftjob-")


def resolve_model(session: Session, principal: Principal, context: Context, name: str) -> ModelSource:
    """Return what a model's name means. Raises ModelNotFound, ModelNotReady, ParentFailed or InvalidRequest."""
    bases = [entry.id for entry in context.catalog.models]
    if name in bases:
        return ModelSource(base=name, project_id=principal.project_id)
    if not name.startswith(_EARLIER):
        raise ModelNotFound(name, bases)
    result = references.find_result(session, principal.project_id, name, param="model", bases=bases)
    job = result.job
    if result.waits:
        maker = f"The job {job.id}" if result.permission is None else "The job"
        raise ModelNotReady(
            f"{maker} that makes {result.name} has not ended ({job.state}): ask one of its checkpoints, or "
            "wait for its end.",
            param="model",
        )
    if result.kind == "reward":
        raise InvalidRequest(f"{result.name} is a reward model: it scores answers and writes none.", param="model")
    if result.kind == "model":
        return ModelSource(base=result.name, project_id=job.project_id)
    return ModelSource(base=job.base, project_id=job.project_id, job_id=job.id, step=result.step)


def require_bounded(request: ChatCompletionRequest, settings: Settings) -> None:
    """Raise TooManyTokens for a request that may draw more tokens than one may, before any work is done for it.

    A limit of tokens beyond the model's context is not an error by itself: the answer ends when the context is full.
    """
    tokens_per_answer = request.most_tokens or settings.engine_max_tokens
    if tokens_per_answer * (request.n or 1) > settings.engine_most_tokens:
        raise TooManyTokens(request, tokens_per_answer, settings.engine_most_tokens)


def open_engine(context: Context) -> Engine:
    """Return the engine's client. Raises ChatUnavailable if none is configured."""
    if context.settings.engine_url is None:
        raise ChatUnavailable(
            "This service has no engine for chat: its operator starts `burnish-server engine` and sets "
            "BURNISH_ENGINE_URL.",
            retry=False,
        )
    return Engine(context.settings.engine_url, context.hmac_key)
