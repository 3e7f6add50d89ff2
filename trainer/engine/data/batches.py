"""Rows laid out as padded batches, and groups of rows that fit a pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from trainer.engine.data.tokens import IGNORED, TokenizedRow
from trainer.kit.auto import TOKENS_A_PASS


def collate(rows: Sequence[TokenizedRow], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad rows on the right to the longest: `input_ids`, `attention_mask`, `labels`, each [rows, tokens].

    The mask comes from lengths: a padding id that is also the end-of-turn token stays trained where it is real.
    """
    longest = max(len(row.input_ids) for row in rows)
    padding = [longest - len(row.input_ids) for row in rows]
    batch = {
        "input_ids": [[*row.input_ids, *[pad_id] * extra] for row, extra in zip(rows, padding, strict=True)],
        "attention_mask": [[1] * (longest - extra) + [0] * extra for extra in padding],
        "labels": [[*row.labels, *[IGNORED] * extra] for row, extra in zip(rows, padding, strict=True)],
    }
    return {name: torch.tensor(values) for name, values in batch.items()}


def collate_sequences(rows: Sequence[TokenizedRow], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad on the right to the longest: `input_ids` and `attention_mask`, which comes from lengths."""
    longest = max(len(row.input_ids) for row in rows)
    padding = [longest - len(row.input_ids) for row in rows]
    ids = [[*row.input_ids, *[pad_id] * extra] for row, extra in zip(rows, padding, strict=True)]
    mask = [[1] * (longest - extra) + [0] * extra for extra in padding]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def batches_within(lengths: Sequence[int], device: str) -> Iterator[list[int]]:
    """Group the places of rows of these lengths, the shortest first.

    Padded, a group stays within the device's tokens a pass; a longer row is a group of its own.
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if batch and (len(batch) + 1) * lengths[place] > TOKENS_A_PASS[device]:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
