from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainer.engine.data.order import EpochBatchSampler, epoch_batches


@given(st.lists(st.integers(1, 500), min_size=1, max_size=120), st.integers(1, 9), st.integers(0, 2**31 - 1))
def test_every_row_once_and_full_batches_but_one(lengths: list[int], size: int, seed: int) -> None:
    batches = epoch_batches(lengths, size, seed, 0)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size) == len(EpochBatchSampler(lengths, size, seed))
    assert sum(len(batch) < size for batch in batches) <= 1
    assert batches == epoch_batches(lengths, size, seed, 0)


def test_epochs_and_seeds_differ_and_only_they_matter() -> None:
    lengths = [(row * 37) % 100 + 1 for row in range(64)]
    sampler = EpochBatchSampler(lengths, 4, 7)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first != second != epoch_batches(lengths, 4, 8, 1)
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_similar_lengths_share_a_batch() -> None:
    lengths = [(row * 37) % 100 + 1 for row in range(64)]
    padded = sum(max(lengths[row] for row in batch) * len(batch) for batch in epoch_batches(lengths, 8, 7, 0))
    assert padded < 1.2 * sum(lengths)
