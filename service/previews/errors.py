"""Errors of previews: too many, no worker, no time, and jobs that would fail."""

from __future__ import annotations

from service.kit.errors import Conflict, InvalidRequest, Unavailable
from trainer.contract.preview import PreviewFailure

_RETRY_SECONDS = 5


class TooManyPreviews(Conflict):
    """The project has enough previews under way."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"{most} previews of this project are under way already, the most that may be at a time "
            f"(BURNISH_MAX_PREVIEWS): wait for one of them, or try again in {_RETRY_SECONDS} seconds.",
            code="too_many_previews",
        )
        self.retry = True
        self.headers = {"retry-after": f"{_RETRY_SECONDS}"}


class StartNotReady(Conflict):
    """What the job would start from does not exist yet."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"The job that makes {model} has not ended, so there is no tokenizer to count with yet: ask again then.",
            param="model",
            code="model_not_ready",
        )


class NoWorker(Conflict):
    """No living worker could count the tokens."""

    code = "no_worker"

    def __init__(self) -> None:
        super().__init__(
            "No worker is running, and only workers have the models' tokenizers: start one with "
            "`burnish-server worker`, then ask again."
        )


class PreviewTimeout(Unavailable):
    """The counting takes longer than a request may."""

    shown = None
    code = "preview_timeout"

    def __init__(self, seconds: float, note: str | None, *, polls: bool) -> None:
        """`polls`: the caller waits in short steps by itself, and wants to hear of each."""
        busy = note or "Every worker is busy with another preview"
        super().__init__(
            f"The preview was not ready within {seconds:g} seconds. {busy}. Send the same request again: it waits for "
            "the same answer."
        )
        self.retry = not polls
        self.headers = {"retry-after": "1"}


class CannotPreview(Unavailable):
    """The worker failed to count."""

    shown = None
    retry = False

    def __init__(self, failure: PreviewFailure) -> None:
        super().__init__(failure.message, param=failure.param, code=failure.code)


class WouldFail(InvalidRequest):
    """A job like this one would fail; the sentence is the one that the job would end with."""

    def __init__(self, failure: PreviewFailure) -> None:
        extra = {} if failure.details is None else {"problems": failure.details}
        super().__init__(failure.message, param=failure.param, code=failure.code, extra=extra)
