"""The routes of graders."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Request

from service.chat.errors import ChatUnavailable, EngineBusy, ModelNotReady
from service.chat.metering import Meter
from service.chat.protocol import Source
from service.context import Context
from service.graders import service
from service.graders.errors import GradersBusy, SourceRefused
from service.graders.schemas import GraderAnswer, GraderCheck, GraderRun, GraderRunAnswer
from service.graders.turns import Turns
from service.jobs.grading import PythonGradersOff
from service.keys.auth import ContextDep, PrincipalDep
from service.keys.service import Principal
from service.kit.attended import attended
from service.kit.declared import refuses
from service.kit.routes import CheckedRoute
from service.limits.rates import RateBookDep
from service.models.errors import ModelNotFound
from trainer.graders import Sample, Tools, grade

router = APIRouter(prefix="/v1/fine_tuning/alpha/graders", tags=["Graders"], route_class=CheckedRoute)

_REFUSALS = (
    PythonGradersOff("grader"),
    SourceRefused("line 1: SyntaxError: expected ':'", param="grader.source"),
    ModelNotFound("gpt-9", ["smollm2-135m-instruct"], param="grader.model"),
    ModelNotReady("The job ftjob-abc123 is running: its model can be asked once it has succeeded.", param="model"),
    GradersBusy(64),
    ChatUnavailable("The engine for chat does not answer at the moment. Try again in a few seconds."),
)


def get_turns(request: Request) -> Turns:
    """Return the process's turns."""
    turns: Turns = request.app.state.grading
    return turns


TurnsDep = Annotated[Turns, Depends(get_turns)]


@router.post("/run", responses=refuses(*_REFUSALS, EngineBusy("32 conversations wait already.")))
async def run_grader(
    body: GraderRun, request: Request, context: ContextDep, principal: PrincipalDep, book: RateBookDep, turns: TurnsDep
) -> GraderRunAnswer:
    """Grade one answer and keep nothing. What goes wrong in grading is told by `metadata.errors`, not by a status."""
    found = await _models(context, principal, body)
    meter = Meter(context, principal, book)
    return await attended(request, _graded(body, Tools(service.asker(context, meter, found), turns.python()), turns))


@router.post("/validate", response_model_exclude_unset=True, responses=refuses(*_REFUSALS))
async def validate_grader(
    body: GraderCheck, context: ContextDep, principal: PrincipalDep, turns: TurnsDep
) -> GraderAnswer:
    """Check a grader as a job with it would be checked: its templates, its formula, its models, its source."""
    await _models(context, principal, body)
    turns.check()
    await to_thread.run_sync(service.check_sources, body.grader, limiter=turns.threads)
    return GraderAnswer(grader=body.grader)


async def _models(context: Context, principal: Principal, body: GraderCheck) -> dict[str, Source]:
    def find() -> dict[str, Source]:
        with context.db.read() as session:
            return service.sources(session, principal, context, body.grader)

    return await to_thread.run_sync(find)


async def _graded(body: GraderRun, tools: Tools, turns: Turns) -> GraderRunAnswer:
    turns.check()
    began = time.monotonic()
    work = partial(grade, body.grader, item=body.item, sample=Sample.of(body.model_sample), tools=tools)
    graded = await to_thread.run_sync(work, limiter=turns.threads)
    seconds = time.monotonic() - began
    return GraderRunAnswer.of(graded, name=body.grader.name, kind=body.grader.type, seconds=seconds)
