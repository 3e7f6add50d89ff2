"""Answers graded in a training: what fails is the grader's failure for that answer, and no fault of the machine."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from tests.trainer.recipes.reinforcement.graded import PYTHON, SIMILAR
from trainer.contract.result import ExitCode
from trainer.engine.onpolicy.prompts import TokenizedPrompt
from trainer.engine.scoring.generation import SampledResponse
from trainer.graders import GRADER
from trainer.graders.base import MOST_CELLS
from trainer.kit.errors import TrainerError
from trainer.recipes.reinforcement.grading import Grading, parse_sample

pytestmark = pytest.mark.integration

CLOSES = "import os, time\ndef grade(sample, item):\n    if item['n'] in {bad}:\n        {does}\n    return 1.0\n"
PIPE = "os.close(3); time.sleep(1000)"
LIE = """os.write(3, b'{"error": "no machine", "kind": "sandbox"}'); os._exit(0)"""


def grading(grader: dict[str, Any], warnings: list[str]) -> Grading:
    """Grade by a grader answers of which each token is a character."""
    tokenizer = SimpleNamespace(decode=lambda ids, **_: "".join(map(chr, ids)))
    template: Any = SimpleNamespace(tokenizer=tokenizer)
    return Grading(template, GRADER.validate_python(grader), ask_all=lambda _: [], warn=warnings.append)


def prompts(items: list[dict[str, Any]]) -> list[TokenizedPrompt]:
    return [TokenizedPrompt(line=line, input_ids=(1,), item=item) for line, item in enumerate(items, 1)]


def answers(*texts: str) -> list[SampledResponse]:
    return [SampledResponse(ids=tuple(map(ord, text)), ended=True) for text in texts]


@pytest.mark.parametrize("does", [PIPE, LIE])
def test_a_source_that_breaks_its_process_costs_that_answer_its_reward(does: str) -> None:
    warnings: list[str] = []
    judge = grading(PYTHON | {"source": CLOSES.format(bad={2}, does=does)}, warnings)
    rewards = judge(prompts([{"n": 1}, {"n": 2}, {"n": 3}]), answers("一", "二", "三"))
    assert (rewards, judge.failed) == ([1.0, 0.0, 1.0], pytest.approx(1 / 3))
    assert len(warnings) == 1
    assert "the answer to line 2" in warnings[0]


@pytest.mark.parametrize("does", [PIPE, LIE])
def test_a_source_that_always_breaks_ends_the_job_without_another_attempt(does: str) -> None:
    judge = grading(PYTHON | {"source": CLOSES.format(bad={1, 2}, does=does)}, [])
    with pytest.raises(TrainerError) as raised:
        judge(prompts([{"n": 1}, {"n": 2}]), answers("一", "二"))
    assert raised.value.code == "grader_failed"
    assert raised.value.exit_code != ExitCode.FAULT


def test_an_answer_too_long_to_be_compared_has_no_reward_and_the_others_have_theirs() -> None:
    warnings: list[str] = []
    judge = grading(SIMILAR, warnings)
    long = "巴黎" * 50_000
    rewards = judge(prompts([{"答案": "巴黎"}, {"答案": long}]), answers("巴黎", long))
    assert rewards == [1.0, 0.0]
    assert f"more than {MOST_CELLS}" in warnings[0]


@pytest.mark.parametrize(
    "text", ["<tool_call>{" * 20_000, "<tool_call>{" + "}" * 200_000, "<tool_call>{}" + " " * 200_000]
)
def test_calls_of_tools_are_found_in_linear_time(text: str) -> None:
    began = time.process_time()
    assert not parse_sample(text).output_tools
    assert time.process_time() - began < 2


def test_calls_are_found_whatever_stands_around_them() -> None:
    text = (
        '<tool_call>没有<tool_call> {"name": "一", "arguments": {"标签": "</tool_call>"}} </tool_call>'
        '<tool_call>{"name": "二"}</tool_call><tool_call>{"name": "三"}'
    )
    assert [call["function"]["name"] for call in parse_sample(text).output_tools] == ["一", "二"]
