from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainer.engine.data.tokens import IGNORED
from trainer.recipes.pretraining.packing import auto_length, chain_documents, collate_windows

START, END = 1, 2
DOCUMENTS = [[10, 11, 12], [20], [30, 31, 32, 33, 34, 35]]


def test_windows_are_exactly_the_stream() -> None:
    windows = chain_documents(DOCUMENTS, start=START, end=END).cut_windows(4)
    assert [window.input_ids.tolist() for window in windows] == [
        [START, 10, 11, 12],
        [START, 20, START, 30],
        [31, 32, 33, 34],
        [35],
    ]
    assert [window.targets.tolist() for window in windows] == [
        [10, 11, 12, END],
        [20, END, 30, 31],
        [32, 33, 34, 35],
        [2],
    ]
    assert [window.position_ids.tolist() for window in windows] == [[0, 1, 2, 3], [0, 1, 0, 1], [0, 1, 2, 3], [0]]
    assert windows.lengths == [4, 4, 4, 1]
    assert [window.line for window in windows[1:3]] == [2, 3]


def test_across_documents_positions_run_through() -> None:
    windows = chain_documents(DOCUMENTS, start=START, end=END).cut_windows(4, across=True)
    assert [window.position_ids.tolist() for window in windows] == [[0, 1, 2, 3]] * 3 + [[0]]


@given(st.lists(st.lists(st.integers(3, 99), min_size=1, max_size=40), min_size=1, max_size=12), st.integers(1, 50))
def test_nothing_is_lost_and_nothing_is_padding(documents: list[list[int]], length: int) -> None:
    windows = chain_documents(documents, start=START, end=END).cut_windows(length)
    targets = np.concatenate([window.targets for window in windows]).tolist()
    assert targets == [token for document in documents for token in [*document, END]]
    inputs = np.concatenate([window.input_ids for window in windows]).tolist()
    assert inputs == [token for document in documents for token in [START, *document]]
    assert windows.tokens == len(targets) == sum(windows.lengths)
    assert [len(window) for window in windows] == windows.lengths
    assert all(len(window) == length for window in windows[:-1])
    for window in windows:
        follow = window.position_ids[1:] > 0
        assert (window.targets[:-1][follow] == window.input_ids[1:][follow]).all()


def test_a_shorter_last_window_is_filled_up_outside_the_loss() -> None:
    windows = chain_documents(DOCUMENTS, start=START, end=END).cut_windows(4)
    batch = collate_windows(windows[2:], pad_id=7)
    assert batch["input_ids"].tolist() == [[31, 32, 33, 34], [35, 7, 7, 7]]
    assert batch["labels"].tolist() == [[32, 33, 34, 35], [END, IGNORED, IGNORED, IGNORED]]
    assert batch.keys() == {"input_ids", "position_ids", "labels"}


def test_no_documents_make_no_windows() -> None:
    windows = chain_documents([], start=START, end=END).cut_windows(4)
    assert (len(windows), windows.lengths, windows.tokens) == (0, [], 0)


def test_auto_length_fits_the_text() -> None:
    assert auto_length(10**6, 1024) == 1024
    assert auto_length(1000, 1024) == 64
    assert auto_length(3, 1024) == 8
