"""Rows laid out as padded batches, and groups of rows that fit a pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from trainer.engine.data.tokens import IGNORED, TokenizedRow
from trainer.kit.auto import TOKENS_A_PASS


def pad_right(rows: Sequence[Sequence[int] | NDArray[np.int64]], fill: int) -> torch.Tensor:
    """Return [rows, tokens]: the rows beside each other, filled up on the right to the longest."""
    return pad_sequence([torch.as_tensor(row, dtype=torch.long) for row in rows], batch_first=True, padding_value=fill)


def collate_sequences(rows: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad token ids on the right: `input_ids` and `attention_mask`, both [rows, tokens].

    The mask comes from lengths: a padding id may also be the end-of-turn token, which is real elsewhere.
    """
    return {"input_ids": pad_right(rows, pad_id), "attention_mask": pad_right([[1] * len(row) for row in rows], 0)}


def collate_rows(rows: Sequence[TokenizedRow], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad rows on the right: `input_ids`, `attention_mask`, `labels`, each [rows, tokens]."""
    batch = collate_sequences([row.input_ids for row in rows], pad_id)
    return {**batch, "labels": pad_right([row.labels for row in rows], IGNORED)}


def batches_within(lengths: Sequence[int], device: str) -> Iterator[list[int]]:
    """Group the places of rows of these lengths, the shortest first.

    Padded, a group stays within the device's tokens a pass; a longer row is a group of its own.
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        # Sorted by length, so that the newest row is the longest and the whole group is padded to it.
        if batch and (len(batch) + 1) * lengths[place] > TOKENS_A_PASS[device]:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
