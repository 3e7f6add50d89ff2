from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainer.engine.data.batches import batches_within
from trainer.kit.auto import TOKENS_A_PASS


@given(st.lists(st.integers(min_value=1, max_value=6000), max_size=60))
def test_every_row_is_in_one_group_that_fits_a_pass(lengths: list[int]) -> None:
    groups = list(batches_within(lengths, "cpu"))
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[place] for place in group)
        assert len(group) == 1 or len(group) * longest <= TOKENS_A_PASS["cpu"]


def test_rows_of_similar_length_go_together_in_their_order() -> None:
    assert list(batches_within([3000, 10, 4096, 10, 12], "cpu")) == [[1, 3, 4], [0], [2]]
