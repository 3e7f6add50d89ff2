"""Answers labelled as wanted or not: tokens, and the answers to other prompts that a baseline is estimated with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainer.contract.job import DataFile
from trainer.contract.rows import ChatRow, LabelledRow
from trainer.engine.data.batches import collate_rows
from trainer.engine.data.row_pipeline import PROBE_ROWS, RowPipeline
from trainer.engine.data.splits import Split
from trainer.engine.data.tokens import TokenizedRow, cut_row
from trainer.engine.preferences.pairs import (
    SUBSET_TOKENS,
    join_conversation,
    prompt_length,
    refuse_long_prompts,
)


@dataclass(frozen=True)
class LabelledAnswer:
    """One answer as tokens, and `mismatched`: the same prompt with the answer of another row behind it.

    `place` is the row's index in its split.
    """

    line: int
    place: int
    label: bool
    answer: TokenizedRow
    mismatched: TokenizedRow


class LabelledData(RowPipeline[LabelledRow, list[TokenizedRow], LabelledAnswer]):
    """Labelled answers; the report's samples ask their prompts."""

    row = LabelledRow
    needed = "room for the answer"

    def read_data(self) -> None:
        """Read and tokenize the answers, and warn if all training rows have one label."""
        super().read_data()
        labels = {row.label for row in self.training.rows}
        if len(labels) == 1:
            label = labels.pop()
            self.job.warn(
                f"{self.training.file.filename}: every row's label is {str(label).lower()}. Nothing tells wanted "
                f"answers from others: the training can only make these answers "
                f"{'likelier' if label else 'less likely'}. Add rows with the other label."
            )

    def tokenize_rows(self, file: DataFile, rows: Sequence[LabelledRow], param: str) -> list[TokenizedRow]:
        """Render and tokenize each row. Raises TrainerError if a prompt leaves no room for an answer."""
        renderer = self.open_renderer(file, param)
        answers = renderer.render_rows(
            rows, lambda row: renderer.encode_sequence(join_conversation(row.input, row.output, row.line))
        )
        refuse_long_prompts(file, answers, self.context, param)
        return answers

    def sequence_lengths(self, tokens: list[TokenizedRow]) -> list[int]:
        """Return the tokens of each answer with its prompt."""
        return [len(answer.input_ids) for answer in tokens]

    def fit_rows(
        self, file: DataFile, rows: Sequence[LabelledRow], tokens: list[TokenizedRow]
    ) -> Split[LabelledAnswer]:
        """Cut answers, drop those without a trained token, and put another row's behind each prompt."""
        return fit_answers(file, rows, tokens, self.max_length)

    def subset_rows(self, rows: Sequence[LabelledAnswer]) -> list[LabelledAnswer]:
        """Return rows of each label with about 4096 tokens together."""
        return subset_answers(rows)

    def sample_rows(self) -> Sequence[ChatRow]:
        """Return the prompts with their answers, whatever their labels."""
        return [join_conversation(row.input, row.output, row.line) for row in self.source]

    def preview_parts(self, row: LabelledAnswer) -> list[tuple[str, TokenizedRow]]:
        """Return the answer."""
        return [("wanted" if row.label else "unwanted", row.answer)]

    def row_lengths(self) -> list[int]:
        """Return the tokens of each training row."""
        return [len(row.answer.input_ids) for row in self.training.rows]

    def probe_rows(self) -> Sequence[TokenizedRow]:
        """Return the first answers."""
        return [row.answer for row in self.measured.rows[:PROBE_ROWS]]


def fit_answers(
    file: DataFile, rows: Sequence[LabelledRow], answers: Sequence[TokenizedRow], limit: int
) -> Split[LabelledAnswer]:
    """Cut answers to `limit` tokens, drop those without a trained token, and put another row's behind each prompt."""
    short = [cut_row(answer, limit) for answer in answers]
    kept = [number for number, answer in enumerate(short) if answer.trained_tokens]
    others = find_partners([answers[number].input_ids[: prompt_length(answers[number])] for number in kept])
    found = [
        LabelledAnswer(
            rows[number].line,
            place,
            rows[number].label,
            short[number],
            # The two may be longer together than either row was.
            cut_row(_mismatch_answer(short[number], short[kept[other]]), limit),
        )
        for place, (number, other) in enumerate(zip(kept, others, strict=True))
    ]
    return Split(
        file=file,
        rows=found,
        read=len(rows),
        tokens=sum(len(row.answer.input_ids) for row in found),
        trained_tokens=sum(row.answer.trained_tokens for row in found),
        cut=tuple(rows[number].line for number in kept if short[number] is not answers[number]),
        dropped=tuple(rows[n].line for n, answer in enumerate(short) if not answer.trained_tokens),
    )


def find_partners(prompts: Sequence[tuple[int, ...]]) -> list[int]:
    """Return for each row another one whose answer does not belong to its prompt, as far as prompts differ.

    Rows are sorted by prompt, and each takes the answer from as many places on as the most frequent prompt has rows:
    none comes from its own prompt unless that has more than half of all rows.
    """
    count = len(prompts)
    if not count:
        return []
    order = sorted(range(count), key=lambda number: prompts[number])
    # All rows with one prompt give a shift of 0: then any other row's answer has to do.
    shift = max(Counter(prompts).values()) % count or 1
    found = {number: order[(place + shift) % count] for place, number in enumerate(order)}
    return [found[number] for number in range(count)]


def subset_answers(rows: Sequence[LabelledAnswer]) -> list[LabelledAnswer]:
    """Return evenly spaced rows of each label with about 4096 tokens together, in the rows' order."""
    stride = max(1, -(-sum(len(row.answer.input_ids) for row in rows) // SUBSET_TOKENS))
    # By label: files made of pairs alternate, and every second row would be of one label.
    chosen = [row for label in (True, False) for row in [row for row in rows if row.label is label][::stride]]
    return sorted(chosen, key=lambda row: row.place)


def collate_answers(rows: Sequence[LabelledAnswer], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad answers into one batch [rows, tokens], with `place` and `wanted`, both [rows]."""
    batch = collate_rows([row.answer for row in rows], pad_id)
    places, wanted = [row.place for row in rows], [row.label for row in rows]
    return {**batch, "place": torch.tensor(places), "wanted": torch.tensor(wanted)}


def _mismatch_answer(asked: TokenizedRow, said: TokenizedRow) -> TokenizedRow:
    end, start = prompt_length(asked), prompt_length(said)
    answer = said.input_ids[start:]
    return TokenizedRow(asked.line, (*asked.input_ids[:end], *answer), (*asked.trained[:end], *said.trained[start:]))
