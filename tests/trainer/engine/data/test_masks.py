"""The masked labels, proved: the trained tokens decode to the assistant's texts with their end token, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.tiny_model import make_tokenizer
from trainer.contract.rows import ChatRow
from trainer.engine.chat_template.render import ChatTemplate
from trainer.engine.data.row_renderer import tokenize_rows
from trainer.engine.data.tokens import IGNORED, TokenizedRow, fit_rows
from trainer.kit.errors import TrainerError

END = "<|im_end|>"
NATIVE = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}{% for m in messages %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}{% for call in m.tool_calls or [] %}[CALL {{ call.function.name }} "
    "{{ call.function.arguments | tojson }}]{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('role') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Like templates of reasoning models: only the last turn has a thinking block, so no turn's rendering is a prefix.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "北京"}'}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def template(source: str | None = None) -> ChatTemplate:
    tokenizer = make_tokenizer()
    if source:
        tokenizer.chat_template = source
    return ChatTemplate(tokenizer)


def message(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def tokenize(chat: ChatTemplate, *messages: dict[str, Any], **row: Any) -> TokenizedRow:
    (tokenized,) = tokenize_rows(chat, [ChatRow.model_validate({"messages": messages, **row, "line": 1})])
    return tokenized


def pieces(chat: ChatTemplate, row: TokenizedRow) -> list[str]:
    """Decode each run of trained tokens."""
    runs: list[list[int]] = []
    for place, label in enumerate(row.labels):
        if label != IGNORED:
            if place == 0 or row.labels[place - 1] == IGNORED:
                runs.append([])
            runs[-1].append(label)
    return [chat.tokenizer.decode(ids) for ids in runs]


def whole(chat: ChatTemplate, row: TokenizedRow) -> str:
    return str(chat.tokenizer.decode(list(row.input_ids)))


@pytest.mark.parametrize("source", [None, NATIVE], ids=["plain", "native"])
@pytest.mark.parametrize("answer", ["Paris.", "今天天气很好,适合散步。🙂", "\n spaces around \n", "a" + "\n" * 3])
def test_single_turn(source: str | None, answer: str) -> None:
    chat = template(source)
    row = tokenize(chat, message("user", "问题?"), message("assistant", answer))
    assert pieces(chat, row) == [answer + END]
    assert whole(chat, row) == f"<|im_start|>user\n问题?{END}\n<|im_start|>assistant\n{answer}{END}\n"


def test_the_whole_rendering_s_tokens_are_those_of_the_pieces() -> None:
    chat = template()
    row = tokenize(
        chat, message("user", "a"), message("assistant", "b"), message("user", "好"), message("assistant", "")
    )
    text = whole(chat, row)
    assert list(row.input_ids) == chat.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_many_turns_and_every_kind_of_content() -> None:
    chat = template()
    parts = [{"type": "text", "text": "two "}, {"type": "text", "text": "parts"}]
    row = tokenize(
        chat,
        message("system", "规则"),
        message("user", "a"),
        message("assistant", "first"),
        message("user", parts),
        message("assistant", parts),
        message("assistant", "and once more"),
    )
    assert pieces(chat, row) == ["first" + END, "two parts" + END, "and once more" + END]


def test_weight_zero_is_not_trained() -> None:
    chat = template()
    row = tokenize(
        chat,
        message("user", "a"),
        message("assistant", "wrong", weight=0),
        message("user", "b"),
        message("assistant", "right", weight=1),
    )
    assert pieces(chat, row) == ["right" + END]
    assert "wrong" in whole(chat, row)


def test_an_answer_quoting_the_question_is_found_in_its_own_turn() -> None:
    chat = template()
    row = tokenize(
        chat,
        message("user", "echo"),
        message("assistant", "echo"),
        message("user", "echo"),
        message("assistant", "echo"),
    )
    assert pieces(chat, row) == ["echo" + END] * 2
    assert row.trained_tokens == 2 * (len("echo") + 1)


def test_tool_calls_in_hermes_form_for_a_template_without_tools() -> None:
    chat = template()
    row = tokenize(
        chat,
        message("user", "天气?"),
        message("assistant", None, tool_calls=[CALL]),
        message("tool", "晴", tool_call_id="c1"),
        message("assistant", "晴天"),
        tools=[TOOL],
    )
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "北京"}}\n</tool_call>'
    assert pieces(chat, row) == [call + END, "晴天" + END]
    text = whole(chat, row)
    assert text.startswith("<|im_start|>system\nYou may call functions.")
    assert '<tools>\n{"type": "function", "function": {"name": "weather"' in text
    assert f"<|im_start|>user\n<tool_response>\n晴\n</tool_response>{END}" in text


def test_tool_calls_by_a_template_with_tools() -> None:
    chat = template(NATIVE)
    row = tokenize(
        chat,
        message("user", "天气?"),
        message("assistant", None, tool_calls=[CALL]),
        message("tool", "晴", tool_call_id="c1"),
        message("assistant", "晴天"),
        tools=[TOOL],
    )
    assert pieces(chat, row) == ['[CALL weather {"city": "北京"}]' + END, "晴天" + END]
    assert whole(chat, row).startswith("<|im_start|>system\nTools: [{")


def test_a_template_that_refuses_system_messages() -> None:
    chat = template(NO_SYSTEM)
    row = tokenize(chat, message("developer", "规则"), message("user", "a"), message("assistant", "b"))
    assert pieces(chat, row) == ["b" + END]
    assert whole(chat, row).startswith("<|im_start|>user\n规则\n\na" + END)


def test_a_turn_that_later_ones_change_is_a_sequence_of_its_own() -> None:
    chat = template(THINKING)
    messages = (message("user", "a"), message("assistant", "b"), message("user", "c"), message("assistant", "d"))
    first, second = tokenize_rows(chat, [ChatRow.model_validate({"messages": messages, "line": 7})])
    assert pieces(chat, first) == ["<think>\n\n</think>\nb" + END]
    assert pieces(chat, second) == ["<think>\n\n</think>\nd" + END]
    assert whole(chat, second).count("<think>") == 1
    assert (first.line, second.line) == (7, 7)


def test_rows_too_long_are_cut_and_dropped_by_line() -> None:
    chat = template()
    rows = [
        ChatRow.model_validate(
            {"messages": [message("user", "u" * size), message("assistant", "a" * 10)], "line": line}
        )
        for line, size in ((1, 5), (4, 30), (9, 60))
    ]
    prepared = fit_rows(tokenize_rows(chat, rows), 45 + len("assistant"))
    assert (prepared.cut, prepared.dropped) == ((4,), (9,))
    assert [row.line for row in prepared.rows] == [1, 4]
    assert prepared.rows[0].trained_tokens == 11
    assert 0 < prepared.rows[1].trained_tokens < 11
    assert prepared.trained_tokens == sum(row.trained_tokens for row in prepared.rows)


def test_no_template_is_an_error() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(TrainerError, match="no chat template") as caught:
        ChatTemplate(tokenizer)
    assert caught.value.code == "unsupported_chat_template"
