"""Rows as tokens, with a mask that is true on what is to be written, and what of them fits the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    # A row may be several sequences: without one of them it was cut, and only without all is it dropped.
    used = {row.line for row in kept}
    shorter = sorted({*cut, *(line for line in dropped if line in used)})
    unused = dict.fromkeys(line for line in dropped if line not in used)
    return FittedRows(tuple(kept), tuple(shorter), tuple(unused))
