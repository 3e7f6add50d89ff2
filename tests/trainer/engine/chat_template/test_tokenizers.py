"""The quirks of real tokenizers: a space in front of every text, bytes for rare characters, greedy control tokens."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerFast

from tests.fixtures import tokenizers
from tests.fixtures.chat_templates import DAY, ROWS, find_runs, judge_row, make_row
from tests.fixtures.template_shapes import SHAPES
from trainer.contract.rows import ChatRow
from trainer.engine.chat_template.render import ChatTemplate

MAKERS: dict[str, Callable[[str], PreTrainedTokenizerFast]] = {
    "space first": tokenizers.make_space_first,
    "metaspace": tokenizers.make_metaspace,
    "byte level": tokenizers.make_byte_level,
    "byte level with space": tokenizers.make_byte_level_with_space,
    "greedy control tokens": tokenizers.make_greedy_specials,
    "greedy on both sides": tokenizers.make_greedy_specials_on_both_sides,
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("shape", ["plain", "instructions in brackets", "tools of its own"])
def test_every_row_is_right(name: str, shape: str) -> None:
    template = ChatTemplate(MAKERS[name](SHAPES[shape]), day=DAY)
    faults = {kind: judge_row(template, make_row(kind, template)) for kind in ROWS}
    assert {kind: v.reason for kind, v in faults.items() if v.outcome in ("wrong", "refused")} == {}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("answer", ["Paris.", "今天天气很好。🙂", "- a\n- b", "e", "one  two"])
def test_a_trained_answer_is_the_text_and_its_end(name: str, answer: str) -> None:
    template = ChatTemplate(MAKERS[name](SHAPES["no line feed behind a turn"]), day=DAY)
    row = ChatRow.model_validate(
        {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": answer}]}
    )
    (sequence,) = template.encode_row(row).sequences
    ((start, end),) = find_runs(sequence.trained)
    before = template.tokenizer.decode(list(sequence.ids[:start]), clean_up_tokenization_spaces=False)
    whole = template.tokenizer.decode(list(sequence.ids[:end]), clean_up_tokenization_spaces=False)
    assert str(whole)[len(str(before)) :] == f"{answer}<|close|>"
    assert sequence.ids[:start] == template.encode_prompt(row.messages[:1], None).ids
