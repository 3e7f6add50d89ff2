"""Prompts as token ids, up to the opening of the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from trainer.contract.rows import ChatRow, ItemRow, Message, PromptRow
from trainer.engine.chat_template.render import ChatTemplate
from trainer.kit.errors import TrainerError


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt up to the opening of the answer. `line` is the row's line in its file."""

    line: int
    input_ids: tuple[int, ...]
    reference: str | None = None
    item: Mapping[str, Any] | None = None
    """The whole row: a grader may ask for any of its keys."""


def tokenize_prompts(template: ChatTemplate, rows: Iterable[PromptRow], *, param: str) -> list[TokenizedPrompt]:
    """Render and tokenize each prompt. Raises TrainerError (`unsupported_conversation`), naming the line."""
    return [_tokenize_prompt(template, row, param) for row in rows]


def as_conversation(row: PromptRow) -> ChatRow:
    """Return the prompt with its reference as the answer, empty if it has none: a question for the report."""
    answer = Message(role="assistant", content=row.reference or "")
    return ChatRow(messages=(*row.input.messages, answer), tools=row.input.tools, line=row.line)


def _tokenize_prompt(template: ChatTemplate, row: PromptRow, param: str) -> TokenizedPrompt:
    try:
        messages, tools = template.prepare_messages(as_conversation(row))
        text = template.render(messages[:-1], tools, prompt=True)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise TrainerError(
            "unsupported_conversation",
            f"The base model's chat template cannot render the prompt in line {row.line}: {error}.",
            param=param,
        ) from error
    ids = template.tokenizer(text, add_special_tokens=False)["input_ids"]
    item = row.item if isinstance(row, ItemRow) else None
    return TokenizedPrompt(row.line, tuple(ids), row.reference, item)
