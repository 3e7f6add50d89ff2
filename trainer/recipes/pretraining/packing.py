"""Packing documents into windows of one length: no padding, every token predicted once, documents kept apart.

Each document of tokens d1 … dn becomes the inputs `start d1 … dn` and the targets `d1 … dn end`. Both streams run
through all documents and are cut into windows of `length` tokens, so a window's last target is the next window's
first input and no token is lost. The last window of a file is shorter if the tokens do not come out even.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.engine.data.batches import pad_right
from trainer.engine.data.tokens import IGNORED


@dataclass(frozen=True)
class Window:
    """One window of the stream: `input_ids`, `targets` and `position_ids`, each [tokens].

    Positions begin anew at each document, which is what keeps documents apart in the attention.
    """

    line: int
    """The window's number in its file, from 1."""
    input_ids: NDArray[np.int64]
    targets: NDArray[np.int64]
    position_ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.input_ids)


class Windows(Sequence[Window]):
    """All windows of a file, cut from its two streams on demand."""

    def __init__(
        self, inputs: NDArray[np.int32], targets: NDArray[np.int32], began: NDArray[np.int64], length: int
    ) -> None:
        self._inputs, self._targets, self._began = inputs, targets, began
        self.length = length

    @property
    def tokens(self) -> int:
        """The tokens of all windows; each is a target once."""
        return len(self._inputs)

    @property
    def lengths(self) -> list[int]:
        """The tokens of each window."""
        whole, rest = divmod(self.tokens, self.length)
        return [self.length] * whole + ([rest] if rest else [])

    def __len__(self) -> int:
        return -(-self.tokens // self.length)

    @overload
    def __getitem__(self, index: int) -> Window: ...
    @overload
    def __getitem__(self, index: slice) -> list[Window]: ...
    def __getitem__(self, index: int | slice) -> Window | list[Window]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        first, last = number * self.length, min((number + 1) * self.length, self.tokens)
        place = np.arange(first, last, dtype=np.int64)
        return Window(
            line=number + 1,
            input_ids=self._inputs[first:last].astype(np.int64),
            targets=self._targets[first:last].astype(np.int64),
            # A document that began in an earlier window begins anew: nothing of it is in sight.
            position_ids=place - np.maximum(self._began[first:last], first),
        )


@dataclass(frozen=True)
class Stream:
    """All documents of a file in a row: `inputs` and `targets` [tokens], and where each token's document began."""

    inputs: NDArray[np.int32]
    targets: NDArray[np.int32]
    began: NDArray[np.int64]
    documents: int

    def cut_windows(self, length: int, *, across: bool = False) -> Windows:
        """Cut the stream; `across` numbers positions through, so that a token sees the documents before its own."""
        began = np.zeros_like(self.began) if across else self.began
        return Windows(self.inputs, self.targets, began, length)


def chain_documents(documents: Iterable[Sequence[int]], *, start: int, end: int) -> Stream:
    """Join tokenized documents, `start` in front of each and `end` behind it."""
    inputs: list[NDArray[np.int32]] = []
    targets: list[NDArray[np.int32]] = []
    began: list[NDArray[np.int64]] = []
    place = 0
    for document in documents:
        # 32 bits hold every vocabulary, at half the memory.
        tokens = np.asarray(document, dtype=np.int32)
        inputs.append(np.concatenate([np.array([start], dtype=np.int32), tokens]))
        targets.append(np.concatenate([tokens, np.array([end], dtype=np.int32)]))
        began.append(np.full(len(tokens) + 1, place, dtype=np.int64))
        place += len(tokens) + 1
    if not inputs:
        return Stream(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int64), 0)
    return Stream(np.concatenate(inputs), np.concatenate(targets), np.concatenate(began), len(inputs))


def collate_windows(windows: Sequence[Window], pad_id: int) -> dict[str, torch.Tensor]:
    """Stack windows: `input_ids`, `position_ids` and `labels`, each [windows, tokens]; labels are the targets.

    Only a file's last, shorter window is ever filled up, on the right: no real token attends to that.
    There is no attention mask on purpose: with one, transformers would not look for documents in the positions.
    """
    return {
        "input_ids": pad_right([window.input_ids for window in windows], pad_id),
        "position_ids": pad_right([window.position_ids for window in windows], 0),
        "labels": pad_right([window.targets for window in windows], IGNORED),
    }


def auto_length(tokens: int, most: int) -> int:
    """Return the window's length for a file of so many tokens: `most`, halved until eight windows fill, at least 8."""
    length = most
    while length > 8 and tokens < 8 * length:
        length //= 2
    return max(8, length)
