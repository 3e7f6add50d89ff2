"""Answers graded in a training: what fails is the grader's failure for that answer, and no fault of the machine."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from tests.fixtures.tiny_model import CHAT_TEMPLATE, make_tokenizer
from tests.trainer.recipes.reinforcement.graded import PYTHON, SIMILAR
from trainer.contract.result import ExitCode
from trainer.engine.chat_template.render import ChatTemplate
from trainer.engine.onpolicy.prompts import TokenizedPrompt
from trainer.engine.scoring.generation import SampledResponse
from trainer.graders import GRADER
from trainer.graders.base import MOST_CELLS
from trainer.kit.errors import TrainerError
from trainer.recipes.reinforcement.grading import Grading

pytestmark = pytest.mark.integration

CLOSES = "import os, time\ndef grade(sample, item):\n    if item['n'] in {bad}:\n        {does}\n    return 1.0\n"
PIPE = "os.close(3); time.sleep(1000)"
TOKENIZER = make_tokenizer()
LIE = """os.write(3, b'{"error": "no machine", "kind": "sandbox"}'); os._exit(0)"""


def grading(grader: dict[str, Any], warnings: list[str]) -> Grading:
    """Grade by a grader."""
    return Grading(ChatTemplate(TOKENIZER), GRADER.validate_python(grader), ask_all=lambda _: [], warn=warnings.append)


def prompts(items: list[dict[str, Any]]) -> list[TokenizedPrompt]:
    return [TokenizedPrompt(line=line, input_ids=(1,), item=item) for line, item in enumerate(items, 1)]


def answers(*texts: str) -> list[SampledResponse]:
    tokenize = partial(TOKENIZER, add_special_tokens=False)
    return [SampledResponse(ids=tuple(tokenize(text)["input_ids"]), ended=True) for text in texts]


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


SEES = PYTHON | {
    "source": "def grade(sample, item):\n    calls = [call['function']['name'] for call in sample['output_tools']]\n"
    "    message = sample['choices'][0]['message']\n    assert message['tool_calls'] == sample['output_tools']\n"
    "    assert message['content'] == sample['output_text']\n"
    "    return float([sample['output_text'], *calls] == item['expected'])\n"
}


def test_a_grader_sees_the_text_and_the_calls_of_tools_that_were_offered() -> None:
    call = '<tool_call>\n{"name": "天气", "arguments": {"城市": "巴黎"}}\n</tool_call>'
    broken_call = "<tool_call>{x}</tool_call>"
    offers = [None, ("天气",), ("时间",)]
    expected = [
        [f"查一下。 {broken_call}", "天气"],
        [f"查一下。 {broken_call}", "天气"],
        [f"查一下。{call} {broken_call}"],
    ]
    asked = [
        TokenizedPrompt(
            line=1,
            input_ids=(1,),
            item={"expected": words},
            tools=names and tuple({"type": "function", "function": {"name": name}} for name in names),
        )
        for names, words in zip(offers, expected, strict=True)
    ]
    judge = grading(SEES, [])
    assert judge(asked, answers(*[f"查一下。{call} {broken_call}"] * 3)) == [1.0, 1.0, 1.0]


def test_a_grader_sees_no_thoughts() -> None:
    tokenizer = make_tokenizer()
    thinking = "{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' if m.reasoning_content }}{{ m.content }}"
    tokenizer.chat_template = CHAT_TEMPLATE.replace("{% for message", "{% for m").replace(
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}",
        "{{ '<|im_start|>' + m.role + '\n' }}" + thinking + "{{ '<|im_end|>\n' }}",
    )
    judge = Grading(ChatTemplate(tokenizer), GRADER.validate_python(SEES), ask_all=lambda _: [], warn=lambda _: None)
    opened = tuple(tokenizer("<|im_start|>assistant\n<think>\n", add_special_tokens=False)["input_ids"])
    asked = [
        TokenizedPrompt(line=1, input_ids=(1,), item={"expected": ["四"]}),
        TokenizedPrompt(line=2, input_ids=opened, item={"expected": ["四"]}),
        TokenizedPrompt(line=3, input_ids=opened, item={"expected": [""]}),
    ]
    said = answers("<think>\n二加二\n</think>\n\n四", "二加二</think>四", "二加二")
    assert judge(asked, said) == [1.0, 1.0, 1.0]
