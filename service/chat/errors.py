"""Errors of chats: no engine, no turn, no model, limits, and what the engine refuses."""

from __future__ import annotations

from service.chat.schemas import ChatCompletionRequest
from service.kit.errors import Conflict, InvalidRequest, ServiceError, Unavailable


class ChatUnavailable(Unavailable):
    """No engine is configured, or it does not answer."""

    code = "chat_unavailable"

    def __init__(self, message: str, *, retry: bool = True) -> None:
        super().__init__(message)
        self.shown = message
        self.retry = retry


class EngineBusy(ServiceError):
    """As many conversations wait as the engine takes."""

    status = 429
    type = "rate_limit_error"
    code = "engine_overloaded"


class AnswerFailed(ServiceError):
    """The engine failed: its machine's fault, or the model's."""

    status = 502
    code = "answer_failed"


class AnswerTooLong(AnswerFailed):
    """An inference server has worked on the answers for as long as it may."""

    retry = False


class TooManyTokens(InvalidRequest):
    """The request needs more tokens than one may."""

    def __init__(self, request: ChatCompletionRequest, tokens_per_answer: int, most: int) -> None:
        answers = request.n or 1
        param = (
            "max_completion_tokens" if request.max_completion_tokens else "max_tokens" if request.max_tokens else "n"
        )
        super().__init__(
            f"This request may draw {answers * tokens_per_answer} tokens (n {answers}, {tokens_per_answer} each); "
            f"the most for one request is {most} (BURNISH_ENGINE_MOST_TOKENS). Lower max_completion_tokens or n.",
            param=param,
        )


class EngineRefused(ServiceError):
    """What the engine, in another process, answers with a status of its own."""

    def __init__(self, message: str, *, status: int, kind: str, retry: bool, param: str | None, code: str | None):
        super().__init__(message, param=param, code=code)
        self.status = status
        self.type = kind
        self.retry = retry
        self.shown = message
        if status == EngineBusy.status:
            self.headers = {"Retry-After": "2"}


class ModelNotReady(Conflict):
    """The job that makes the model has not ended."""

    code = "model_not_ready"
