"""From chat rows to tokens: the chat template applied, and a mask that is true on the assistant's tokens only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from trainer.engine.template import ChatTemplate
from trainer.errors import TrainerError
from trainer.rows import ChatRow

IGNORED = -100
_SENTINEL = "burnishsentinel"


@dataclass(frozen=True)
class TokenizedRow:
    """A row as token ids, and for each token whether it is in the loss. `line` is the row's line in its file."""

    line: int
    input_ids: tuple[int, ...]
    trained: tuple[bool, ...]

    @property
    def labels(self) -> list[int]:
        """The ids where a token is trained, -100 elsewhere."""
        return [token if keep else IGNORED for token, keep in zip(self.input_ids, self.trained, strict=True)]

    @property
    def trained_tokens(self) -> int:
        """How many tokens are in the loss; the first token has no prediction and never counts."""
        return sum(self.trained[1:])


@dataclass(frozen=True)
class Prepared:
    """Rows that fit the model, and the line numbers of those that were cut or dropped."""

    rows: tuple[TokenizedRow, ...]
    cut: tuple[int, ...]
    dropped: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """All tokens of one pass over the rows."""
        return sum(len(row.input_ids) for row in self.rows)

    @property
    def trained_tokens(self) -> int:
        """The tokens of one pass over the rows that are in the loss."""
        return sum(row.trained_tokens for row in self.rows)


def tokenize_rows(
    template: ChatTemplate, rows: Iterable[ChatRow], *, param: str = "training_file"
) -> list[TokenizedRow]:
    """Render and tokenize each row. Raises TrainerError (`unsupported_conversation`), naming the line."""
    return [_tokenize_row(template, row, param) for row in rows]


def prepare(rows: Sequence[TokenizedRow], max_length: int) -> Prepared:
    """Cut rows to `max_length` tokens from the right and drop those left without a trained token."""
    kept: list[TokenizedRow] = []
    cut: list[int] = []
    dropped: list[int] = []
    for row in rows:
        short = row
        if len(row.input_ids) > max_length:
            short = TokenizedRow(row.line, row.input_ids[:max_length], row.trained[:max_length])
        if not short.trained_tokens:
            dropped.append(row.line)
            continue
        kept.append(short)
        if short is not row:
            cut.append(row.line)
    return Prepared(tuple(kept), tuple(cut), tuple(dropped))


def _tokenize_row(template: ChatTemplate, row: ChatRow, param: str) -> TokenizedRow:
    try:
        messages, tools = template.messages(row)
        text = template.render(messages, tools)
        spans = _assistant_spans(template, row, messages, tools, text)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise TrainerError(
            "unsupported_conversation",
            f"The base model's chat template cannot render the conversation in line {row.line}: {error}.",
            param=param,
        ) from error
    ids, trained = _tokenize_pieces(template.tokenizer, text, spans)
    return TokenizedRow(row.line, tuple(ids), tuple(trained))


def _assistant_spans(
    template: ChatTemplate,
    row: ChatRow,
    messages: Sequence[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    text: str,
) -> list[tuple[int, int]]:
    """Return the spans of `text` that the model is to write: each trained turn's content with its end token."""
    weights = iter(message.trained for message in row.messages if message.role == "assistant")
    spans: list[tuple[int, int]] = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant" and next(weights):
            start = _turn_start(template, messages, index, tools, text)
            if spans and start < spans[-1][1]:
                raise ValueError("the assistant's turns overlap")
            spans.append((start, _turn_end(template, message["content"], start, text)))
    return spans


def _turn_start(
    template: ChatTemplate,
    messages: Sequence[dict[str, Any]],
    index: int,
    tools: list[dict[str, Any]] | None,
    text: str,
) -> int:
    """Return where the turn begins: after the prompt that generation would see, where the template allows that."""
    try:
        prompt = template.render(messages[:index], tools, prompt=True)
    except (TemplateError, TypeError, ValueError, KeyError, IndexError):
        prompt = None
    if prompt and text.startswith(prompt):
        return len(prompt)
    marked = [*messages[:index], {**messages[index], "content": _SENTINEL}, *messages[index + 1 :]]
    start = template.render(marked, tools).find(_SENTINEL)
    if start < 0 or messages[index].get("tool_calls") or not text.startswith(messages[index]["content"], start):
        raise ValueError(f"the place of message {index + 1} in the rendering is not clear")
    return start


def _turn_end(template: ChatTemplate, content: str, start: int, text: str) -> int:
    """Return the end of the turn in `text`, its end-of-turn token included."""
    content = content.strip()
    place = text.find(content, start) if content else start
    after = (place if place >= 0 else start) + (len(content) if place >= 0 else 0)
    if template.end_of_turn is None:
        return after
    end = text.find(template.end_of_turn, after)
    return end + len(template.end_of_turn) if end >= 0 else len(text)


def _tokenize_pieces(
    tokenizer: PreTrainedTokenizerBase, text: str, spans: Sequence[tuple[int, int]]
) -> tuple[list[int], list[bool]]:
    """Tokenize prompt and answer apart, as generation does: there the prompt's tokens are fixed before the answer.

    Where pieces do not decode to the same text (tokenizers that add a space in front of a piece), the whole text is
    tokenized and a token is trained where its first character lies in a span.
    """
    ids: list[int] = []
    trained: list[bool] = []
    place = 0
    for start, end in [*spans, (len(text), len(text))]:
        for piece, keep in ((text[place:start], False), (text[start:end], True)):
            tokens = tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else []
            ids.extend(tokens)
            trained.extend([keep] * len(tokens))
        place = end
    whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if ids == whole["input_ids"] or _decode(tokenizer, ids) == _decode(tokenizer, whole["input_ids"]):
        return ids, trained
    return list(whole["input_ids"]), [
        any(start <= first < end for start, end in spans) for first, _ in whole["offset_mapping"]
    ]


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
