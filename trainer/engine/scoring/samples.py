"""Answers side by side: held-out prompts, answered greedily by the base and by the tuned model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from trainer.contract.rows import ChatRow
from trainer.engine.answer_format.answer_reader import AnswerReader
from trainer.engine.chat_template.end_of_turn import stop_ids
from trainer.engine.chat_template.render import ChatTemplate, RefusedRowError
from trainer.engine.scoring.evaluate import evaluation_mode
from trainer.engine.scoring.generation import generate_greedily
from trainer.frozen import Frozen

MAX_NEW_TOKENS = 160
BATCH_ROWS = 8


class PromptMessage(Frozen):
    """One message of a sample's prompt, as it was rendered."""

    role: str
    content: str


class AnswerComparison(Frozen):
    """One prompt, the answer that its row expects, and both models' answers, with what they think first apart."""

    line: int
    source: Literal["validation", "training"]
    prompt: tuple[PromptMessage, ...]
    expected: str
    base: str
    tuned: str
    expected_thoughts: str = ""
    base_thoughts: str = ""
    tuned_thoughts: str = ""


@dataclass(frozen=True)
class SampleAnswer:
    """What a model answers to a sample's prompt. Calls of tools are in the text, as it writes them."""

    text: str
    thoughts: str = ""


@dataclass(frozen=True)
class SampleQuestion:
    """A prompt as token ids, and what its row expects as an answer."""

    line: int
    source: Literal["validation", "training"]
    messages: tuple[PromptMessage, ...]
    ids: list[int]
    expected: str
    expected_tokens: int
    expected_thoughts: str = ""


def pick_questions(
    template: ChatTemplate,
    rows: Sequence[ChatRow],
    *,
    count: int,
    context: int,
    source: Literal["validation", "training"],
) -> list[SampleQuestion]:
    """Choose `count` evenly spaced rows' last turns, skipping rows without a prompt that fits the context."""
    stride = max(1, len(rows) // max(count, 1))
    found = (_make_question(template, row, context, source) for row in rows[::stride][:count])
    reader = AnswerReader(template.tokenizer)
    return [_split_expected(reader, question) for question in found if question]


def answer_greedily(model: Any, template: ChatTemplate, questions: Sequence[SampleQuestion]) -> list[SampleAnswer]:
    """Answer greedily, each answer up to half as long again as the longest that is expected."""
    if not questions:
        return []
    room = max(question.expected_tokens for question in questions)
    limit = min(MAX_NEW_TOKENS, room + room // 2 + 16)
    with evaluation_mode(model):
        return _answer_in_batches(model, template, questions, limit)


def side_by_side(
    questions: Sequence[SampleQuestion], base: Sequence[SampleAnswer], tuned: Sequence[SampleAnswer]
) -> list[AnswerComparison]:
    """Pair both models' answers."""
    return [
        AnswerComparison(
            line=q.line,
            source=q.source,
            prompt=q.messages,
            expected=q.expected,
            base=b.text,
            tuned=t.text,
            expected_thoughts=q.expected_thoughts,
            base_thoughts=b.thoughts,
            tuned_thoughts=t.thoughts,
        )
        for q, b, t in zip(questions, base, tuned, strict=True)
    ]


def _split_expected(reader: AnswerReader, question: SampleQuestion) -> SampleQuestion:
    answer = reader.read_text(question.ids, question.expected)
    return replace(question, expected=answer.text, expected_thoughts=answer.reasoning)


def _make_question(
    template: ChatTemplate, row: ChatRow, context: int, source: Literal["validation", "training"]
) -> SampleQuestion | None:
    last = max(number for number, message in enumerate(row.messages) if message.role == "assistant")
    if last == 0:
        return None
    try:
        prompt = template.encode_prompt(row.messages[:last], row.tools)
    except RefusedRowError:
        return None
    ids = list(prompt.ids)
    if len(ids) + MAX_NEW_TOKENS > context:
        return None
    expected = template.render_answer(row, last)
    size = len(template.tokenizer(expected, add_special_tokens=False)["input_ids"])
    shown = tuple(PromptMessage(role=m["role"], content=m["content"]) for m in prompt.messages)
    return SampleQuestion(row.line, source, shown, ids, expected, size)


def _answer_in_batches(
    model: Any, template: ChatTemplate, questions: Sequence[SampleQuestion], limit: int
) -> list[SampleAnswer]:
    """Generate in batches of rows of similar length, padded on the left; answers come back in the given order."""
    order = sorted(range(len(questions)), key=lambda number: len(questions[number].ids))
    answers: dict[int, SampleAnswer] = {}
    reader = AnswerReader(template.tokenizer)
    for start in range(0, len(order), BATCH_ROWS):
        numbers = order[start : start + BATCH_ROWS]
        prompts = [questions[number].ids for number in numbers]
        answer_ids = _generate_ids(model, template, prompts, limit)
        for number, prompt, ids in zip(numbers, prompts, answer_ids, strict=True):
            answer = reader.read_answer(prompt, ids)
            answers[number] = SampleAnswer(answer.text.strip(), answer.reasoning)
    return [answers[number] for number in range(len(questions))]


def _generate_ids(
    model: Any, template: ChatTemplate, prompts: Sequence[list[int]], limit: int
) -> Sequence[Sequence[int]]:
    tokenizer = template.tokenizer
    assert isinstance(tokenizer.pad_token_id, int)
    stops = stop_ids(template, model.generation_config.eos_token_id)
    return generate_greedily(model, prompts, limit=limit, stops=stops, pad_id=tokenizer.pad_token_id)
