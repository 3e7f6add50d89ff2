"""One request's grading: what takes processor time goes to other processes, what asks is asked from here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from service.graders.turns import PYTHON_SECONDS, GradingTurns, PythonSlotsBusy
from trainer.graders import (
    AnyGrader,
    Failure,
    Grade,
    GradeErrors,
    GraderQuestion,
    MultiGrader,
    Reply,
    leaf_graders,
    python_sources,
)
from trainer.graders.sandbox import Leash, SandboxLimits, run_python_call

ASKING_SECONDS = 600.0
"""How long the models of one request may take to answer together, as long as OpenAI's clients wait."""
AskModel = Callable[[GraderQuestion], Awaitable[Reply]]


async def grade_answer(grader: AnyGrader, body: bytes, *, ask: AskModel, turns: GradingTurns, project_id: str) -> Grade:
    """Return the grade for the body of a request with the grader `grader`.

    Raises Unavailable, and what `ask` raises for the whole request.
    """
    answers: dict[str, list[Any]] = {}
    try:
        outcome = await turns.children.grade_body(project_id, body, answers)
        if outcome.grade is None:
            answers["replies"] = await _ask_all(outcome.questions, ask)
            run = partial(_run_in_turn, turns, project_id)
            answers["rewards"] = await _run_all(python_sources(grader)[: outcome.calls], outcome.call, run)
            outcome = await turns.children.grade_body(project_id, body, answers)
    except Failure as failure:
        return _make_failed_grade(grader, failure)
    assert outcome.grade is not None, "a grader asked for more than it had asked for"
    return outcome.grade


async def _ask_all(questions: tuple[GraderQuestion, ...], ask: AskModel) -> list[Any]:
    replies: list[Any] = []
    deadline = asyncio.get_running_loop().time() + ASKING_SECONDS
    late = Failure("model_grader_server_error", f"the models took more than {ASKING_SECONDS:g} seconds to answer")
    for question in questions:
        try:
            async with asyncio.timeout_at(deadline):
                replies.append((await ask(question)).model_dump())
        except TimeoutError:
            replies.append(_describe_failure(late))
        except Failure as failure:
            replies.append(_describe_failure(failure))
    return replies


Run = Callable[[float, Callable[[SandboxLimits, Leash], float]], Awaitable[float]]


async def _run_all(sources: tuple[str, ...], call: bytes, run: Run) -> list[Any]:
    rewards: list[Any] = []
    deadline = asyncio.get_running_loop().time() + PYTHON_SECONDS
    late = Failure("unresponsive_reward_error", f"the Python graders took more than {PYTHON_SECONDS:g} seconds")
    for source in sources:
        try:
            rewards.append(await run(deadline, partial(_call_python, source, call)))
        except PythonSlotsBusy:
            rewards.append(_describe_failure(late))
        except Failure as failure:
            rewards.append(_describe_failure(failure))
    return rewards


async def _run_in_turn(
    turns: GradingTurns, project_id: str, deadline: float, work: Callable[[SandboxLimits, Leash], float]
) -> float:
    return await turns.python.run_in_slot(project_id, deadline, work)


def _call_python(source: str, call: bytes, limits: SandboxLimits, leash: Leash) -> float:
    return run_python_call(source, call, limits=limits, leash=leash)


def _describe_failure(failure: Failure) -> dict[str, str | None]:
    return {"flag": failure.flag, "message": failure.message, "kind": failure.kind}


def _make_failed_grade(grader: AnyGrader, failure: Failure) -> Grade:
    """Return the grade if the grading itself did not come to an end."""
    names = leaf_graders(grader) if isinstance(grader, MultiGrader) else ()
    errors = GradeErrors.from_failure(failure, grader=grader.name)
    return Grade(errors=errors, sub_rewards=dict.fromkeys(names, 0.0))
