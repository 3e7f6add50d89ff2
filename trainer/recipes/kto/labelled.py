"""Answers labelled as wanted or not: tokens, and the answers to other prompts that a baseline is estimated with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainer.contract.job import DataFile
from trainer.contract.rows import LabelledRow
from trainer.engine.chat_template.render import ChatTemplate
from trainer.engine.data.batches import collate_rows
from trainer.engine.data.splits import Split
from trainer.engine.data.tokens import TokenizedRow, tokenize_rows
from trainer.engine.preferences.pairs import (
    SUBSET_TOKENS,
    cut_row,
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


def tokenize_answers(template: ChatTemplate, rows: Sequence[LabelledRow], param: str) -> list[TokenizedRow]:
    """Render and tokenize each row. Raises TrainerError (`unsupported_conversation`)."""
    return tokenize_rows(template, [join_conversation(row.input, row.output, row.line) for row in rows], param=param)


def fit_answers(
    file: DataFile, rows: Sequence[LabelledRow], answers: Sequence[TokenizedRow], limit: int, context: int, param: str
) -> Split[LabelledAnswer]:
    """Cut answers to `limit` tokens, drop those without a trained token, and put another row's behind each prompt.

    Raises TrainerError (`invalid_training_file`, …) if a prompt alone is longer than the model's context.
    """
    refuse_long_prompts(file, answers, context, param)
    short = [cut_row(answer, limit) for answer in answers]
    kept = [number for number, answer in enumerate(short) if answer.trained_tokens]
    others = find_partners([answers[number].input_ids[: prompt_length(answers[number])] for number in kept])
    found = [
        LabelledAnswer(
            rows[number].line,
            place,
            rows[number].label,
            short[number],
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
