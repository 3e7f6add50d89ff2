"""`/v1/fine_tuning/alpha/graders`: rules that give answers a reward, tried out before a job trains on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from burnish._request import Request, parser_of
from burnish._transport import AsyncTransport, Transport
from burnish.grader_schemas import Grader, GraderRun, GraderValidation

_PATH = "/fine_tuning/alpha/graders"
_ANSWER_SECONDS = 600.0
"""How long the server may send nothing: a model that grades may have to be loaded first."""


def _run_grader_request(
    grader: Grader | Mapping[str, Any], model_sample: str, item: Mapping[str, Any] | None
) -> Request[GraderRun]:
    body: dict[str, Any] = {"grader": grader, "model_sample": model_sample}
    if item is not None:
        body["item"] = item
    return Request("POST", f"{_PATH}/run", parser_of(GraderRun), json=body, read_timeout=_ANSWER_SECONDS)


def _validate_grader_request(grader: Grader | Mapping[str, Any]) -> Request[GraderValidation]:
    body = {"grader": grader}
    return Request("POST", f"{_PATH}/validate", parser_of(GraderValidation), json=body, read_timeout=_ANSWER_SECONDS)


class Graders:
    """`client.graders`: try a grader on one answer."""

    def __init__(self, client: Transport) -> None:
        self._client = client

    def run(
        self, *, grader: Grader | Mapping[str, Any], model_sample: str, item: Mapping[str, Any] | None = None
    ) -> GraderRun:
        """Grade one answer, `model_sample`, to a row, `item`. Raises APIError, such as BadRequestError.

        What goes wrong in grading raises nothing: the reward is 0 then, and `metadata.errors` says why.
        """
        return self._client.send(_run_grader_request(grader, model_sample, item))

    def validate(self, *, grader: Grader | Mapping[str, Any]) -> GraderValidation:
        """Check a grader without running it. Raises APIError, such as BadRequestError."""
        return self._client.send(_validate_grader_request(grader))


class AsyncGraders:
    """`client.graders`, awaited; see `Graders`."""

    def __init__(self, client: AsyncTransport) -> None:
        self._client = client

    async def run(
        self, *, grader: Grader | Mapping[str, Any], model_sample: str, item: Mapping[str, Any] | None = None
    ) -> GraderRun:
        """Grade one answer, `model_sample`, to a row, `item`."""
        return await self._client.send(_run_grader_request(grader, model_sample, item))

    async def validate(self, *, grader: Grader | Mapping[str, Any]) -> GraderValidation:
        """Check a grader without running it."""
        return await self._client.send(_validate_grader_request(grader))
