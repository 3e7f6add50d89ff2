"""From chat rows to tokens: the chat template applied, and a mask that is true on the assistant's tokens only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from trainer.contract.rows import ChatRow
from trainer.engine.chat_template.answer_spans import assistant_spans
from trainer.engine.chat_template.render import ChatTemplate
from trainer.kit.errors import TrainerError

IGNORED = -100


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
class FittedRows:
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


def cut_row(row: TokenizedRow, limit: int) -> TokenizedRow:
    """Return the row's first `limit` tokens: the row itself if it is not longer."""
    return row if len(row.input_ids) <= limit else TokenizedRow(row.line, row.input_ids[:limit], row.trained[:limit])


def fit_rows(rows: Sequence[TokenizedRow], max_length: int) -> FittedRows:
    """Cut rows to `max_length` tokens from the right and drop those left without a trained token."""
    kept: list[TokenizedRow] = []
    cut: list[int] = []
    dropped: list[int] = []
    for row in rows:
        short = cut_row(row, max_length)
        # A prompt that fills the limit leaves no token to learn from.
        if not short.trained_tokens:
            dropped.append(row.line)
            continue
        kept.append(short)
        if short is not row:
            cut.append(row.line)
    return FittedRows(tuple(kept), tuple(cut), tuple(dropped))


def _tokenize_row(template: ChatTemplate, row: ChatRow, param: str) -> TokenizedRow:
    try:
        messages, tools = template.prepare_messages(row)
        text = template.render(messages, tools)
        spans = assistant_spans(template, row, messages, tools, text)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise TrainerError(
            "unsupported_conversation",
            f"The base model's chat template cannot render the conversation in line {row.line}: {error}.",
            param=param,
        ) from error
    ids, trained = _tokenize_pieces(template.tokenizer, text, spans)
    return TokenizedRow(row.line, tuple(ids), tuple(trained))


def _tokenize_pieces(
    tokenizer: PreTrainedTokenizerBase, text: str, spans: Sequence[tuple[int, int]]
) -> tuple[list[int], list[bool]]:
    """Tokenize prompt and answer apart, as generation does: there the prompt's tokens are fixed before the answer.

    If pieces do not decode to the same text (tokenizers that add a space in front of a piece), the whole text is
    tokenized and a token is trained if its first character lies in a span.
    """
    ids: list[int] = []
    trained: list[bool] = []
    place = 0
    # The empty span at the end brings along what stands behind the last answer.
    for start, end in [*spans, (len(text), len(text))]:
        for piece, keep in ((text[place:start], False), (text[start:end], True)):
            # The template has written the special tokens already.
            tokens = tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else []
            ids.extend(tokens)
            trained.extend([keep] * len(tokens))
        place = end
    whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if ids == whole["input_ids"] or _decode_exactly(tokenizer, ids) == _decode_exactly(tokenizer, whole["input_ids"]):
        return ids, trained
    return list(whole["input_ids"]), [
        any(start <= first < end for start, end in spans) for first, _ in whole["offset_mapping"]
    ]


def _decode_exactly(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
