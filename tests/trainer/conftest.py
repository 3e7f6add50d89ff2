from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.workdirs import chat, jsonl, lay_out, run, training_rows


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """The work folder of one whole run, which many tests look at."""
    rows = training_rows()
    rows[4] = chat("long", "字" * 200)  # cut: 600 tokens of the byte-level tokenizer
    rows[5] = chat("x" * 300, "never reached")  # dropped: the answer lies behind max_length
    validation = [*training_rows(7), chat("<script>alert(2)</script>", "</div>好的")]
    hyperparameters = {
        "n_epochs": 2,
        "batch_size": 3,
        "gradient_accumulation_steps": 2,
        "max_length": 128,
        "eval_steps": 2,
        "checkpoint_steps": 2,
        "learning_rate_multiplier": 3,
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
    }
    workdir = lay_out(tmp_path_factory.mktemp("run") / "w", tiny_base, jsonl(rows), jsonl(validation), hyperparameters)
    child = run(workdir)
    assert child.returncode == 0, child.stderr.decode()[-3000:]
    return workdir
