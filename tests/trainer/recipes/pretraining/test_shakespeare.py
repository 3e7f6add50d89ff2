"""nanoGPT's CPU recipe, cut short: the whole of it is `python -m tests.benchmarks.from_scratch`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.from_scratch import TARGET_LOSS, lay_out, run_job, text_file

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

# Fewer of the recipe's 2000 steps, for the time it takes: with Llama's layers its target is reached that early.
STEPS = 750


def test_the_target_is_reached_early(tmp_path: Path) -> None:
    if not text_file().is_file():
        pytest.skip("tinyshakespeare.txt is not there: put it beside the repository or set BURNISH_TEST_DATA")
    text = text_file().read_bytes().decode()
    report = run_job(lay_out(tmp_path / "w", text, seed=1, steps=STEPS))
    loss = report["comparison"][0]
    assert loss["weight"] == len(text) - len(text) * 9 // 10 + 1
    assert loss["tuned"]["value"] <= TARGET_LOSS < loss["base"]["value"]
    assert report["kind"] == "model"
