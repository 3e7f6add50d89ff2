"""Samples of a report: thoughts apart from the text, in what the row expects too."""

from __future__ import annotations

from pathlib import Path

import trl

from tests.fixtures.tiny_model import make_tokenizer
from trainer.contract.rows import ChatRow, Message
from trainer.engine.chat_template.render import ChatTemplate
from trainer.engine.scoring.samples import SampleAnswer, pick_questions, side_by_side

QWEN = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"


def test_an_expected_thought_stands_apart() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = QWEN.read_text(encoding="utf-8")
    row = ChatRow(
        messages=(
            Message(role="user", content="二加二?"),
            Message(role="assistant", content="<think>\n二加二是四\n</think>\n\n四"),
        ),
        line=3,
    )
    questions = pick_questions(ChatTemplate(tokenizer), [row], count=1, context=4096, source="validation")
    sample = side_by_side(questions, [SampleAnswer("三")], [SampleAnswer("四", "想")])[0]
    assert (sample.expected, sample.expected_thoughts) == ("四", "二加二是四")
    assert (sample.base, sample.base_thoughts, sample.tuned, sample.tuned_thoughts) == ("三", "", "四", "想")
