"""The routes of graders."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, FastAPI, Request

from service.chat.errors import ChatUnavailable, EngineBusy, ModelNotReady
from service.chat.metering import TokenMeter
from service.chat.protocol import ModelSource
from service.context import Context
from service.graders import service
from service.graders.errors import GradersBusy, PythonGradersBusy, PythonGradersUnavailable, SourceRefused
from service.graders.grading import AskModel, grade_answer
from service.graders.schemas import GraderAnswer, GraderCheck, GraderRun, GraderRunAnswer
from service.graders.turns import PYTHON_SECONDS, WAITING, GradingTurns
from service.jobs.grading import PythonGradersOff
from service.keys.auth import ContextDep, PrincipalDep
from service.keys.service import Principal
from service.kit.attended import run_while_connected
from service.kit.declared import declare_errors
from service.kit.routes import CheckedRoute
from service.limits.rates import RateBookDep
from service.models.errors import ModelNotFound


@asynccontextmanager
async def _ending_children(app: FastAPI) -> AsyncGenerator[None]:
    yield
    turns: GradingTurns = app.state.grading
    await turns.children.close()


router = APIRouter(
    prefix="/v1/fine_tuning/alpha/graders", tags=["Graders"], route_class=CheckedRoute, lifespan=_ending_children
)

_REFUSALS = (
    PythonGradersOff("grader"),
    SourceRefused("line 1: SyntaxError: expected ':'", param="grader.source"),
    ModelNotFound("gpt-9", ["smollm2-135m-instruct"], param="grader.model"),
    ModelNotReady("The job ftjob-abc123 is running: its model can be asked once it has succeeded.", param="model"),
    GradersBusy(WAITING),
    PythonGradersBusy(PYTHON_SECONDS),
    PythonGradersUnavailable("this machine cannot shut a grader in: prctl(22): Invalid argument"),
    ChatUnavailable("The engine for chat does not answer at the moment. Try again in a few seconds."),
)


def get_turns(request: Request) -> GradingTurns:
    """Return the process's turns."""
    turns: GradingTurns = request.app.state.grading
    return turns


TurnsDep = Annotated[GradingTurns, Depends(get_turns)]


@router.post("/run", responses=declare_errors(*_REFUSALS, EngineBusy("32 conversations wait already.")))
async def run_grader(
    body: GraderRun, request: Request, context: ContextDep, principal: PrincipalDep, book: RateBookDep, turns: TurnsDep
) -> GraderRunAnswer:
    """Grade one answer and keep nothing. Errors in grading are in `metadata.errors`, not in the status."""
    sources = await _find_models(context, principal, body)
    meter = TokenMeter(context, principal, book)
    ask = service.make_asker(context, meter, sources)
    return await run_while_connected(
        request, _grade_in_turn(body, await request.body(), ask, turns, principal.project_id)
    )


@router.post("/validate", response_model_exclude_unset=True, responses=declare_errors(*_REFUSALS))
async def validate_grader(
    body: GraderCheck, request: Request, context: ContextDep, principal: PrincipalDep, turns: TurnsDep
) -> GraderAnswer:
    """Check a grader as a job with it would be checked: its templates, its formula, its models, its source."""
    await _find_models(context, principal, body)
    await run_while_connected(request, _check_in_turn(body, turns, principal.project_id))
    return GraderAnswer(grader=body.grader)


async def _find_models(context: Context, principal: Principal, body: GraderCheck) -> dict[str, ModelSource]:
    def read_sources() -> dict[str, ModelSource]:
        with context.db.read() as session:
            return service.find_sources(session, principal, context, body.grader)

    return await to_thread.run_sync(read_sources)


async def _check_in_turn(body: GraderCheck, turns: GradingTurns, project_id: str) -> None:
    async with turns.hold_request_turn(project_id):
        await service.check_sources(body.grader, turns, project_id)


async def _grade_in_turn(
    body: GraderRun, content: bytes, ask: AskModel, turns: GradingTurns, project_id: str
) -> GraderRunAnswer:
    async with turns.hold_request_turn(project_id):
        began = time.monotonic()
        grade = await grade_answer(body.grader, content, ask=ask, turns=turns, project_id=project_id)
        seconds = time.monotonic() - began
    return GraderRunAnswer.from_grade(grade, name=body.grader.name, kind=body.grader.type, seconds=seconds)
