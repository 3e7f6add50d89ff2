"""Templates of every shape: each row is trained as what the assistant wrote, or refused with the reason."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from tests.fixtures.chat_templates import judge_template, make_template_tokenizer, open_template
from tests.fixtures.template_shapes import SHAPES
from trainer.contract.rows import ChatRow, Message
from trainer.engine.chat_template.end_of_turn import closing_ids, stop_ids
from trainer.engine.chat_template.render import ChatTemplate, EncodedSequence


@pytest.mark.parametrize("name", SHAPES)
def test_every_row_is_right(name: str) -> None:
    verdicts = judge_template(SHAPES[name])
    left = {kind: verdict for kind, verdict in verdicts.items() if verdict.outcome in ("wrong", "refused")}
    if name == "turns must alternate":
        assert left.pop("greets first").outcome == "refused"
    assert left == {}


def trained_text(template: ChatTemplate, sequence: EncodedSequence) -> str:
    ids = [token for token, keep in zip(sequence.ids, sequence.trained, strict=True) if keep]
    return str(template.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def encode(name: str, *messages: dict[str, Any], **more: Any) -> tuple[ChatTemplate, list[str]]:
    template = open_template(SHAPES[name])
    encoded = template.encode_row(ChatRow.model_validate({"messages": messages, **more}))
    return template, [trained_text(template, sequence) for sequence in encoded.sequences]


USER, ANSWER = {"role": "user", "content": "北京?"}, {"role": "assistant", "content": "晴。"}


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("plain", "晴。<|close|>"),
        ("two tokens close a turn", "<|say|>晴。<|said|><|close|>"),
        ("nothing ends a turn", "晴。</s>"),
        ("another end for the newest turn", "晴。<|return|>"),
        ("always opens the next turn", "晴。<|close|>"),
        ("no opening of its own", "[assistant]晴。</s>"),
        ("opens thoughts and drops them", "\n</think>\n\n晴。<|close|>"),
        ("an empty thought in the newest turn", "<think>\n\n</think>\n\n晴。<|close|>"),
        ("an empty thought in the prompt alone", "晴。<|close|>"),
        ("a level of reasoning", "晴。<|close|>"),
        ("marks of generation", "晴。<|close|>"),
    ],
)
def test_an_answer_goes_from_where_generation_begins_to_its_stop(name: str, trained: str) -> None:
    template, texts = encode(name, USER, ANSWER)
    assert texts == [trained]
    stops = stop_ids(template, None)
    assert template.tokenizer.eos_token_id in stops
    assert template.tokenizer(trained, add_special_tokens=False)["input_ids"][-1] in stops


@pytest.mark.parametrize("name", ["plain", "nothing ends a turn", "another end for the newest turn"])
def test_a_policy_s_answer_is_closed_as_rows_are(name: str) -> None:
    template = open_template(SHAPES[name])
    row = ChatRow(messages=(Message(role="user", content="a"), Message(role="assistant", content="b")))
    (sequence,) = template.encode_row(row).sequences
    closing = closing_ids(template)
    assert sequence.ids[-len(closing) :] == closing


def test_earlier_turns_that_later_ones_change_are_sequences_of_their_own() -> None:
    _, texts = encode("another end for the newest turn", USER, ANSWER, USER, ANSWER)
    assert texts == ["晴。<|return|>"] * 2
    _, texts = encode("plain", USER, ANSWER, USER, ANSWER)
    assert texts == ["晴。<|close|>晴。<|close|>"]


def test_a_mask_never_leaves_its_message() -> None:
    quiet = {**ANSWER, "content": "雨。", "weight": 0}
    for name in ("an end at the very end alone", "another end for the newest turn", "nothing ends a turn"):
        _, texts = encode(name, USER, ANSWER, USER, quiet)
        assert [text.split("<")[0].strip() for text in texts] == ["晴。"], name


def test_the_date_is_the_job_s() -> None:
    tokenizer = make_template_tokenizer(SHAPES["today's date"])
    first = ChatTemplate(tokenizer, day=date(2024, 2, 29)).encode_prompt([Message(role="user", content="a")], None)
    assert "29 February 2024" in first.text
    assert ChatTemplate(tokenizer, day=date(2024, 2, 29)).encode_prompt([Message(role="user", content="a")], None) == (
        first
    )


@pytest.mark.parametrize("name", ["tools of its own", "plain", "arguments as text", "ids of nine letters"])
def test_arguments_are_trained_as_they_were_given(name: str) -> None:
    given = '{"price":1.10,  "city": "\\u5317京", "n": [1e2]}'
    call = {"id": "c1", "type": "function", "function": {"name": "pay", "arguments": given}}
    _, (text,) = encode(name, USER, {"role": "assistant", "content": None, "tool_calls": [call]})
    assert given in text


def test_numbers_keep_their_digits_one_by_one() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "pay", "arguments": '{"price": 1.10, "n": 10}'}}
    _, (text,) = encode("arguments one by one", USER, {"role": "assistant", "content": None, "tool_calls": [call]})
    assert "<|key|>price=1.10<|key|>n=10" in text


@pytest.mark.parametrize(
    ("use", "trained"),
    [
        ("train", "<think>想。</think>晴。<|close|>"),
        ("context", "晴。<|close|>"),
        ("drop", "晴。<|close|>"),
    ],
)
def test_thoughts_are_learned_or_read_or_left_out(use: str, trained: str) -> None:
    template = ChatTemplate(make_template_tokenizer(SHAPES["thoughts in a field"]), thoughts=use)  # type: ignore[arg-type]
    row = ChatRow.model_validate({"messages": [USER, {**ANSWER, "reasoning_content": "想。"}]})
    (sequence,) = template.encode_row(row).sequences
    assert trained_text(template, sequence) == trained
    assert ("想" in str(template.tokenizer.decode(list(sequence.ids)))) is (use != "drop")


def test_what_the_template_cannot_say_is_noted() -> None:
    def notes(name: str, *messages: dict[str, Any]) -> set[str]:
        row = ChatRow.model_validate({"messages": messages})
        return set(open_template(SHAPES[name]).encode_row(row).notes)

    system = {"role": "system", "content": "规则"}
    assert notes("no system", system, USER, ANSWER) == {"system"}
    assert notes("drops later systems", USER, system, ANSWER) == {"system"}
    assert notes("plain", USER, system, ANSWER) == set()
    assert notes("plain", {**USER, "name": "Ada"}, ANSWER) == {"names"}
    assert notes("names of speakers", {**USER, "name": "Ada"}, ANSWER) == set()
    assert notes("turns must alternate", USER, USER, ANSWER) == {"merged"}
    assert notes("an empty thought in the prompt alone", USER, {**ANSWER, "reasoning_content": "x"}) == {"thoughts"}
