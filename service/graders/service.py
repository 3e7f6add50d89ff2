"""The rules of graders: what a project's graders may use, and how a grader's question becomes a chat."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from sqlalchemy.orm import Session

from service.chat import gather
from service.chat.engine import Engine
from service.chat.metering import TokenMeter
from service.chat.protocol import EngineQuestion, ModelSource
from service.chat.schemas import ChatCompletion, ChatCompletionRequest
from service.chat.service import open_engine, resolve_model
from service.context import Context
from service.graders.errors import PythonGradersBusy, PythonGradersUnavailable, SourceRefused
from service.graders.grading import AskModel
from service.graders.turns import PYTHON_SECONDS, GradingTurns, PythonSlotsBusy
from service.jobs.grading import PythonGradersOff
from service.keys.service import Principal
from service.kit.errors import ServiceError
from trainer.graders import Failure, PythonGrader, Reply, TokenUsage
from trainer.graders import GraderQuestion as GradersQuestion
from trainer.graders.label_model import LabelModelGrader
from trainer.graders.leaf import Leaf
from trainer.graders.multi import MultiGrader
from trainer.graders.sandbox import Leash, SandboxLimits, check_python
from trainer.graders.score_model import ScoreModelGrader

_OF_THE_SERVICE = (429, 503)
"""What the caller learns from the answer's status, because the same request may succeed later."""


def grader_places(grader: Leaf | MultiGrader) -> Mapping[str, Leaf]:
    """Return the graders that are not a `multi` by their places in the body."""
    if isinstance(grader, Leaf):
        return {"grader": grader}
    if isinstance(grader.graders, Leaf):
        return {"grader.graders": grader.graders}
    return {f"grader.graders.{name}": leaf for name, leaf in grader.list_named_graders().items()}


def find_sources(
    session: Session, principal: Principal, context: Context, grader: Leaf | MultiGrader
) -> dict[str, ModelSource]:
    """Return which weights the models' names mean.

    Raises PythonGradersOff, ChatUnavailable, or what a chat with such a model raises.
    """
    sources: dict[str, ModelSource] = {}
    for place, leaf in grader_places(grader).items():
        if isinstance(leaf, PythonGrader) and context.settings.python_graders == "off":
            raise PythonGradersOff(place)
        if isinstance(leaf, (ScoreModelGrader, LabelModelGrader)):
            try:
                sources[leaf.model] = resolve_model(session, principal, context, leaf.model)
            except ServiceError as error:
                error.param = f"{place}.model"
                raise
    if sources:
        open_engine(context)
    return sources


async def check_sources(grader: Leaf | MultiGrader, turns: GradingTurns, project_id: str) -> None:
    """Compile the Python graders, each in a process of its own, in the same turns as those that run.

    Raises SourceRefused, PythonGradersBusy, PythonGradersUnavailable.
    """
    deadline = asyncio.get_running_loop().time() + PYTHON_SECONDS
    for place, leaf in grader_places(grader).items():
        if isinstance(leaf, PythonGrader):
            try:
                await turns.python.run_in_slot(project_id, deadline, partial(_check_source, leaf.source))
            except PythonSlotsBusy as error:
                raise PythonGradersBusy(PYTHON_SECONDS) from error
            except Failure as failure:
                if failure.flag == "python_grader_server_error":
                    raise PythonGradersUnavailable(failure.message) from failure
                raise SourceRefused(failure.message, param=f"{place}.source") from failure


def _check_source(source: str, limits: SandboxLimits, leash: Leash) -> None:
    check_python(source, limits=limits, leash=leash)


def make_asker(context: Context, meter: TokenMeter, sources: Mapping[str, ModelSource]) -> AskModel:
    """Return what asks models.

    It raises Failure for what a model does, and RateLimited, EngineBusy or ChatUnavailable for the whole request.
    """
    engine = open_engine(context) if sources else None

    async def ask_model(question: GradersQuestion) -> Reply:
        assert engine is not None
        request = _make_chat_request(question, fixed_format=context.settings.inference_url is not None)
        project_id = meter.principal.project_id
        engine_question = EngineQuestion(source=sources[question.model], request=request, project_id=project_id)
        try:
            completion = await _complete_chat(engine, meter, engine_question)
        except ServiceError as error:
            if error.status in _OF_THE_SERVICE:
                raise
            raise Failure("model_grader_server_error", error.message) from error
        return _make_reply(completion)

    return ask_model


def _make_chat_request(question: GradersQuestion, *, fixed_format: bool) -> ChatCompletionRequest:
    """Return the chat; `fixed_format` if the server behind holds models to a schema, as our own engine does not."""
    schema = {"name": "grade", "strict": True, "schema": question.schema_}
    format_ = {"response_format": {"type": "json_schema", "json_schema": schema}} if fixed_format else {}
    return ChatCompletionRequest.model_validate(
        {"model": question.model, "messages": question.messages, **question.sampling, **format_}
    )


async def _complete_chat(engine: Engine, meter: TokenMeter, question: EngineQuestion) -> ChatCompletion:
    reserved_tokens = await meter.reserve_tokens(question.request)
    return await gather.join_chunks(meter.meter_chunks(engine.stream_answer(question), reserved_tokens))


def _make_reply(completion: ChatCompletion) -> Reply:
    choice = completion.choices[0]
    if choice.finish_reason == "content_filter" or choice.message.refusal:
        raise Failure("model_grader_refusal_error", "the model refused to grade")
    return Reply(
        text=choice.message.content or "",
        usage=TokenUsage(**completion.usage.model_dump()),
        cut=choice.finish_reason == "length",
    )
