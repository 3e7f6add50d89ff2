"""Prompts with a better and a worse continuation: tokens, batches and the log-probabilities of whole continuations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainer.contract.job import DataFile
from trainer.contract.rows import ChatRow, Message, PreferenceRow, Prompt
from trainer.engine.data.batches import collate_rows
from trainer.engine.data.row_pipeline import PROBE_ROWS, RowPipeline
from trainer.engine.data.row_renderer import RowRenderer
from trainer.engine.data.splits import Split
from trainer.engine.data.tokens import TokenizedRow, cut_row
from trainer.engine.recipe import Recipe
from trainer.engine.scoring.head import trained_scores
from trainer.kit.errors import TrainerError

SUBSET_TOKENS = 4096


@dataclass(frozen=True)
class Pair:
    """One preference as tokens; in both rows only the assistant's tokens behind the prompt are trained.

    `place` is its index among the split's pairs.
    """

    line: int
    place: int
    chosen: TokenizedRow
    rejected: TokenizedRow

    @property
    def tokens(self) -> int:
        """The tokens of both rows, the prompt counted twice as it is computed twice."""
        return len(self.chosen.input_ids) + len(self.rejected.input_ids)


def join_conversation(prompt: Prompt, output: Sequence[Message], line: int) -> ChatRow:
    """Return prompt and continuation as one conversation whose prompt is not trained on.

    A user's turns inside a continuation of several turns stay out of the loss, as everywhere.
    """
    quiet = [m.model_copy(update={"weight": 0}) if m.role == "assistant" else m for m in prompt.messages]
    return ChatRow(messages=(*quiet, *output), tools=prompt.tools, line=line)


def tokenize_pairs(renderer: RowRenderer, rows: Sequence[PreferenceRow]) -> list[Pair]:
    """Render and tokenize both continuations of each row. Raises TrainerError (`unsupported_conversation`)."""

    def encode_both(row: PreferenceRow) -> tuple[int, TokenizedRow, TokenizedRow]:
        better, worse = (
            renderer.encode_sequence(join_conversation(row.input, output, row.line))
            for output in (row.chosen, row.rejected)
        )
        return row.line, better, worse

    return [
        Pair(line, place, better, worse)
        for place, (line, better, worse) in enumerate(renderer.render_rows(rows, encode_both))
    ]


def prompt_length(row: TokenizedRow) -> int:
    """Return the tokens in front of the first trained one."""
    return row.trained.index(True) if True in row.trained else len(row.input_ids)


def fit_pairs(file: DataFile, pairs: Sequence[Pair], limit: int) -> Split[Pair]:
    """Cut continuations to `limit` tokens; drop pairs of which one has no trained token left, or that became equal."""
    kept: list[Pair] = []
    cut: list[int] = []
    dropped: list[int] = []
    for pair in pairs:
        chosen, rejected = cut_row(pair.chosen, limit), cut_row(pair.rejected, limit)
        # Equal ones teach nothing: their difference lies behind the cut.
        if not (chosen.trained_tokens and rejected.trained_tokens) or chosen.input_ids == rejected.input_ids:
            dropped.append(pair.line)
            continue
        if chosen is not pair.chosen or rejected is not pair.rejected:
            cut.append(pair.line)
        kept.append(Pair(pair.line, len(kept), chosen, rejected))
    return Split(
        file=file,
        rows=kept,
        read=len(pairs),
        tokens=sum(pair.tokens for pair in kept),
        trained_tokens=sum(pair.chosen.trained_tokens + pair.rejected.trained_tokens for pair in kept),
        cut=tuple(cut),
        dropped=tuple(dropped),
    )


def refuse_long_prompts(file: DataFile, rows: Sequence[TokenizedRow], context: int, param: str) -> None:
    """Raise TrainerError (`invalid_training_file`, …) if a prompt alone is longer than the model's context."""
    # A prompt as long as the context is refused too: it leaves no place for an answer's first token.
    too_long = [row.line for row in rows if prompt_length(row) >= context]
    if too_long:
        raise TrainerError(
            f"invalid_{param}",
            f"{file.filename}: the prompt in line {', '.join(map(str, too_long[:20]))} leaves no room for an answer "
            f"in the model's context of {context} tokens: shorten it, or leave the row out.",
            param=param,
        )


def collate_pairs(pairs: Sequence[Pair], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad chosen rows, then rejected rows, into one batch [2 · pairs, tokens], with `place` [pairs]."""
    batch = collate_rows([*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)], pad_id)
    return {**batch, "place": torch.tensor([pair.place for pair in pairs])}


def sequence_log_probs(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each row's summed log-probability of its trained tokens, in nats, and their number, both [rows]."""
    log_probs, _ = trained_scores(model, batch, compact=True)
    sizes = (batch["labels"][:, 1:] != -100).sum(dim=1)
    sums = torch.stack([part.sum() for part in log_probs.split(sizes.tolist())])
    return sums, sizes


class PairData(RowPipeline[PreferenceRow, list[Pair], Pair]):
    """Preference rows; the report's samples ask their prompts."""

    row = PreferenceRow
    needed = "room for both answers up to where they differ"

    def tokenize_rows(self, file: DataFile, rows: Sequence[PreferenceRow], param: str) -> list[Pair]:
        """Tokenize both continuations of each row. Raises TrainerError if a prompt leaves no room for one."""
        pairs = tokenize_pairs(self.open_renderer(file, param), rows)
        # Of one continuation: both have the same prompt.
        refuse_long_prompts(file, [pair.chosen for pair in pairs], self.context, param)
        return pairs

    def sequence_lengths(self, tokens: list[Pair]) -> list[int]:
        """Return the tokens of each continuation with its prompt."""
        return [len(row.input_ids) for pair in tokens for row in (pair.chosen, pair.rejected)]

    def fit_rows(self, file: DataFile, rows: Sequence[PreferenceRow], tokens: list[Pair]) -> Split[Pair]:  # noqa: ARG002
        """Cut continuations, and drop pairs of which one has nothing left."""
        return fit_pairs(file, tokens, self.max_length)

    def subset_rows(self, rows: Sequence[Pair]) -> Sequence[Pair]:
        """Return pairs with about 4096 tokens together."""
        return rows[:: max(1, -(-sum(pair.tokens for pair in rows) // SUBSET_TOKENS))]

    def sample_rows(self) -> Sequence[ChatRow]:
        """Return the prompts with the answers that are preferred."""
        return [join_conversation(row.input, row.chosen, row.line) for row in self.source]

    def preview_parts(self, row: Pair) -> list[tuple[str, TokenizedRow]]:
        """Return both continuations."""
        return [("preferred", row.chosen), ("non_preferred", row.rejected)]

    def row_lengths(self) -> list[int]:
        """Return the tokens of each training pair, both rows together."""
        return [pair.tokens for pair in self.training.rows]

    def probe_rows(self) -> Sequence[TokenizedRow]:
        """Return the first chosen answers."""
        return [pair.chosen for pair in self.measured.rows[:PROBE_ROWS]]


class PreferenceRecipe(Recipe[PairData]):
    """What methods on preference rows share."""

    pipeline = PairData
