"""A grader as the judge of answers. What it asks of a model and of Python is gathered first, then done all at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainer.contract.result import ExitCode
from trainer.engine.answer_format.answer_reader import AnswerReader
from trainer.engine.answer_format.parts import AnswerContent, OfferedTools
from trainer.engine.chat_template.render import ChatTemplate
from trainer.engine.onpolicy.prompts import TokenizedPrompt
from trainer.engine.scoring.generation import SampledResponse
from trainer.graders import (
    AnyGrader,
    Failure,
    Grade,
    GraderQuestion,
    Reply,
    Sample,
    Tools,
    grade_sample,
    grader_models,
    python_sources,
)
from trainer.graders.sandbox import run_python_on_all
from trainer.kit.errors import TrainerError

PLACE = "method.reinforcement.grader"
AskAll = Callable[[Sequence[GraderQuestion]], list[Reply | Failure]]
Call = tuple[Mapping[str, Any], Mapping[str, Any]]
_ANSWERS_FAULTS = (
    "sample_parse_error",
    "invalid_variable_error",
    "model_grader_parse_error",
    "truncated_observation_error",
)
"""Flags that another answer may not raise: a model that learns may come to answers that can be graded."""


class Grading:
    """Scores answers; what could not be graded has the reward 0. `failed` is the share of those in the last scoring.

    Raises TrainerError (`grader_failed`) if no answer could be graded and other answers would change nothing.
    """

    def __init__(
        self, template: ChatTemplate, grader: AnyGrader, *, ask_all: AskAll, warn: Callable[[str], None]
    ) -> None:
        self.failed = 0.0
        self._reader, self._grader, self._ask_all, self._warn = AnswerReader(template.tokenizer), grader, ask_all, warn
        self._needs_tools = bool(grader_models(grader) or python_sources(grader))
        self._has_warned = False

    def __call__(self, prompts: Sequence[TokenizedPrompt], responses: Sequence[SampledResponse]) -> list[float]:
        """Return the rewards."""
        samples = [
            make_sample(self._reader.read_answer(prompt.input_ids, response.ids, _offer_tools(prompt)))
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        scenes = [(prompt.item or {}, sample) for prompt, sample in zip(prompts, samples, strict=True)]
        grades = self._grade_all(scenes, self._prepare_tools(scenes))
        self._review_failures(prompts, grades)
        return [one.reward for one in grades]

    def _grade_all(self, scenes: Sequence[tuple[Mapping[str, Any], Sample]], tools: Tools) -> list[Grade]:
        return [grade_sample(self._grader, item=item, sample=sample, tools=tools) for item, sample in scenes]

    def _prepare_tools(self, scenes: Sequence[tuple[Mapping[str, Any], Sample]]) -> Tools:
        """Let the grader ask for what it wants, do that, and return tools that have it at hand."""
        if not self._needs_tools:
            return Tools()
        # Graded twice: the first time every question fails, and is written down for one batch.
        wanted = _RequestRecorder()
        self._grade_all(scenes, Tools(ask=wanted.record_question, run_python=wanted.record_call))
        replies = dict(zip(wanted.questions, self._ask_all(list(wanted.questions.values())), strict=True))
        rewards: dict[tuple[str, str], float | Failure] = {}
        for source, calls in wanted.calls.items():
            found = run_python_on_all(source, list(calls.values()))
            rewards |= {(source, key): reward for key, reward in zip(calls, found, strict=True)}
        return Tools(
            ask=lambda question: _raise_if_failure(replies[question.model_dump_json()]),
            run_python=lambda source, sample, item: _raise_if_failure(rewards[source, _call_key(sample, item)]),
        )

    def _review_failures(self, prompts: Sequence[TokenizedPrompt], grades: Sequence[Grade]) -> None:
        failures = [(prompt.line, one.errors) for prompt, one in zip(prompts, grades, strict=True) if one.failed]
        self.failed = len(failures) / len(grades)
        if not failures:
            return
        line, errors = failures[0]
        said = f"the answer to line {line}: {errors.messages[0]}"
        # A sandbox that does not start is the machine's fault, even if other answers were graded.
        broken = next((errors for _, errors in failures if errors.python_grader_server_error), None)
        if broken is not None:
            raise TrainerError(
                "grader_failed",
                f"The grader cannot be run on this machine. {broken.messages[0]}.",
                param=PLACE,
                exit_code=ExitCode.FAULT,
            )
        hopeless = not any(getattr(one, flag) for _, one in failures for flag in _ANSWERS_FAULTS)
        if hopeless and len(failures) == len(grades):
            raise TrainerError(
                "grader_failed",
                f"The grader could grade none of {len(grades)} answers, so there is nothing to learn from: {said}.",
                param=PLACE,
            )
        if not self._has_warned:
            self._has_warned = True
            self._warn(
                f"{len(failures)} of {len(grades)} answers could not be graded and have the reward 0, as will others "
                f"like them: {said}."
            )


class _RequestRecorder:
    """Writes down what graders ask for, each thing once, in the order of asking."""

    def __init__(self) -> None:
        self.questions: dict[str, GraderQuestion] = {}
        self.calls: dict[str, dict[str, Call]] = {}

    def record_question(self, question: GraderQuestion) -> Reply:
        """Write a question down; there is no reply yet."""
        self.questions.setdefault(question.model_dump_json(), question)
        raise Failure("other_error", "not asked yet")

    def record_call(self, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]) -> float:
        """Write a call down; there is no reward yet."""
        self.calls.setdefault(source, {}).setdefault(_call_key(sample, item), (sample, item))
        raise Failure("other_error", "not run yet")


def make_sample(answer: AnswerContent) -> Sample:
    """Return an answer as graders see it: what it says in the end, and its calls in the form of OpenAI's chat."""
    calls = [
        {"id": f"call_{number}", "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for number, call in enumerate(answer.calls)
    ]
    return Sample.from_text(answer.text, calls)


def _offer_tools(prompt: TokenizedPrompt) -> OfferedTools:
    # A row without tools may describe them in words: its grader is to see what is called.
    return OfferedTools.from_wire(prompt.tools) if prompt.tools else OfferedTools(any_name=True)


def _call_key(sample: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    return json.dumps([sample, item], ensure_ascii=True)


def _raise_if_failure(found: Any) -> Any:
    if isinstance(found, Failure):
        raise found
    return found
