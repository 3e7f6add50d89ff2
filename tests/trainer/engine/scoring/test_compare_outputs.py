"""An export counts only if all of its outputs are those of the trained model."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.contract.result import ExitCode
from trainer.engine.scoring.compare_outputs import require_close
from trainer.kit.errors import TrainerError

ROWS = [torch.zeros(3, 5), torch.ones(2, 5)]


def changed(row: int, value: float) -> list[torch.Tensor]:
    found = [row.clone() for row in ROWS]
    found[row][1, 2] += value
    return found


def test_the_largest_difference_of_any_row_is_returned() -> None:
    assert require_close("file", "logits", ROWS, changed(1, -0.25), 0.25) == 0.25
    assert require_close("file", "logits", ROWS, ROWS, 0.0) == 0.0


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("value", [0.5, -0.5, math.inf, math.nan])
def test_one_wrong_number_in_any_row_is_a_mismatch(row: int, value: float) -> None:
    with pytest.raises(TrainerError, match="exported file does not give the trained model's logits") as caught:
        require_close("file", "logits", ROWS, changed(row, value), 0.25)
    assert (caught.value.code, caught.value.exit_code) == ("export_mismatch", ExitCode.FAULT)
