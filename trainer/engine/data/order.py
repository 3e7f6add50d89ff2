"""Every order is a pure function of seed, epoch and iteration: a resumed run sees what one without a stop sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import torch
from torch.utils.data import BatchSampler, DataLoader

from trainer.contract.methods.base import Resolved

# Rows are sorted by length within windows of this many batches: little padding, and yet a shuffled order.
WINDOW_BATCHES = 8


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the batches of row numbers of one epoch: every row once, rows of similar length together."""
    # Seeds lie far apart: one epoch later must not be the order of the next seed.
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(len(lengths), generator=generator).tolist()
    window = batch_size * WINDOW_BATCHES
    batches: list[list[int]] = []
    for start in range(0, len(order), window):
        rows = sorted(order[start : start + window], key=lambda row: lengths[row])
        batches += [rows[place : place + batch_size] for place in range(0, len(rows), batch_size)]
    # Otherwise every window would go from its short rows to its long ones.
    shuffled: list[int] = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[number] for number in shuffled]


def iter_step_rows(lengths: Sequence[int], resolved: Resolved) -> Iterator[list[int]]:
    """Yield the row numbers of each optimizer step of a run, to its end."""
    done = 0
    for epoch in count():
        batches = epoch_batches(lengths, resolved.batch_size, resolved.seed, epoch)
        # The library does not accumulate across epochs: the last step of one may have fewer batches.
        for start in range(0, len(batches), resolved.gradient_accumulation_steps):
            if done == resolved.total_steps:
                return
            yield [row for batch in batches[start : start + resolved.gradient_accumulation_steps] for row in batch]
            done += 1


class EpochBatchSampler(BatchSampler):
    """Yields the batches of the epoch that was set last; it has no other state."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.drop_last = False

    def __iter__(self) -> Iterator[list[int]]:
        return iter(epoch_batches(self.lengths, self.batch_size, self.seed, self.epoch))

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is yielded next."""
        self.epoch = epoch


class EpochLoader(DataLoader):
    """A DataLoader that hands the trainer's epoch on to its batch sampler."""

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch."""
        assert isinstance(self.batch_sampler, EpochBatchSampler)
        self.batch_sampler.set_epoch(epoch)


def prompts_of_iteration(count: int, rollout: int, seed: int, iteration: int) -> list[int]:
    """Return the numbers of the prompts of an iteration, from 0: shuffled passes over all of them, end to end."""
    places = range(iteration * rollout, (iteration + 1) * rollout)
    # Only the passes that these places lie in: a late iteration costs no more than the first.
    orders = {epoch: _shuffle_epoch(count, seed, epoch) for epoch in {place // count for place in places}}
    return [orders[place // count][place % count] for place in places]


def derived_seed(seed: int, iteration: int, purpose: int) -> int:
    """Return a seed of its own for each iteration and purpose, so that no generator's state needs to be kept."""
    return (seed * 1_000_003 + iteration) * 64 + purpose


def _shuffle_epoch(count: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order
