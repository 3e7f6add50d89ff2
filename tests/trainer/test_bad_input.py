"""Each bad input ends in one error event with a stable code and a sentence, and leaves no result."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.fixtures.tiny_model import make_tiny_model
from tests.trainer.workdirs import chat, events_of, jsonl, lay_out, training_rows
from trainer.contract.events import ErrorEvent
from trainer.contract.result import MANIFEST_NAME, ExitCode
from trainer.engine.loop.training_loop import require_finite
from trainer.kit.errors import TrainerError, as_trainer_error
from trainer.kit.stop import StopFlag
from trainer.run import run_training_job

pytestmark = [
    pytest.mark.integration,
    # PEFT asks by the old name
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
]


def failed(workdir: Path) -> tuple[ExitCode, ErrorEvent]:
    code = run_training_job(workdir, StopFlag())
    assert not (workdir / MANIFEST_NAME).exists()
    errors = [event for event in events_of(workdir) if isinstance(event, ErrorEvent)]
    assert len(errors) == 1
    return code, errors[0]


def lay(tmp_path: Path, base: Path, rows: list[dict[str, Any]] | bytes, **hyperparameters: Any) -> Path:
    content = rows if isinstance(rows, bytes) else jsonl(rows)
    return lay_out(tmp_path / "w", base, content, None, hyperparameters)


def test_broken_job(tmp_path: Path, tiny_base: Path) -> None:
    workdir = lay(tmp_path, tiny_base, training_rows(), n_epochs=99)
    code, error = failed(workdir)
    assert (code, error.code) == (ExitCode.BAD_INPUT, "invalid_job")
    assert "n_epochs" in error.message


def test_a_job_that_is_not_json(tmp_path: Path, tiny_base: Path) -> None:
    workdir = lay(tmp_path, tiny_base, training_rows())
    (workdir / "job.json").write_text("{")
    assert failed(workdir)[1].code == "invalid_job"


def test_missing_data(tmp_path: Path, tiny_base: Path) -> None:
    workdir = lay(tmp_path, tiny_base, training_rows())
    (workdir / "data/training.jsonl").unlink()
    code, error = failed(workdir)
    assert (code, error.code) == (ExitCode.BAD_INPUT, "invalid_training_file")
    assert "training.jsonl is missing" in error.message


def test_data_that_is_not_what_the_job_states(tmp_path: Path, tiny_base: Path) -> None:
    workdir = lay(tmp_path, tiny_base, training_rows())
    (workdir / "data/training.jsonl").write_bytes(jsonl(training_rows(3)))
    code, error = failed(workdir)
    assert (code, error.code) == (ExitCode.FAULT, "data_corrupted")


def test_broken_rows_are_named_by_line(tmp_path: Path, tiny_base: Path) -> None:
    rows = jsonl([chat("a", "b")]) + b'{"messages": []}\nnot json\n' + jsonl([chat("a", "b")])
    code, error = failed(lay(tmp_path, tiny_base, rows))
    assert (code, error.code, error.param) == (ExitCode.BAD_INPUT, "invalid_training_file", "training_file")
    assert "line 2: messages" in error.message
    assert "line 3: " in error.message
    assert "line 4" not in error.message


def test_a_row_with_nothing_to_train_is_named(tmp_path: Path, tiny_base: Path) -> None:
    quiet = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "答", "weight": 0}]}
    code, error = failed(lay(tmp_path, tiny_base, [chat("a", "b"), quiet]))
    assert (code, error.code) == (ExitCode.BAD_INPUT, "invalid_training_file")
    assert "line 2: messages: every assistant message has weight 0" in error.message


def test_not_utf8(tmp_path: Path, tiny_base: Path) -> None:
    assert "not UTF-8" in failed(lay(tmp_path, tiny_base, "天气".encode("gb18030")))[1].message


def test_no_trainable_rows(tmp_path: Path, tiny_base: Path) -> None:
    code, error = failed(lay(tmp_path, tiny_base, [chat("x" * 200, "too far")], max_length=64))
    assert (code, error.code) == (ExitCode.BAD_INPUT, "no_trainable_rows")


def test_empty_file(tmp_path: Path, tiny_base: Path) -> None:
    assert failed(lay(tmp_path, tiny_base, b""))[1].code == "no_trainable_rows"


def test_unknown_target_module_names_those_that_exist(tmp_path: Path, tiny_base: Path) -> None:
    lora = {"target_modules": ["q_proj", "w_qkv"]}
    code, error = failed(lay(tmp_path, tiny_base, training_rows(), lora=lora))
    assert (code, error.code) == (ExitCode.BAD_INPUT, "invalid_hyperparameters")
    assert "named w_qkv;" in error.message
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in error.message


def test_a_model_that_gives_no_numbers(tmp_path: Path, tiny_base: Path) -> None:
    workdir = lay(tmp_path, tiny_base, training_rows())
    poison_base(workdir)
    code, error = failed(workdir)
    assert (code, error.code) == (ExitCode.BAD_INPUT, "loss_not_finite")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_diverging_step_ends_the_run(value: float) -> None:
    assert require_finite(1.5, 3, "supervised") == 1.5
    with pytest.raises(TrainerError, match="at step 3") as caught:
        require_finite(value, 3, "supervised")
    assert caught.value.code == "loss_not_finite"


def poison_base(workdir: Path) -> None:
    """Give the run a base with one infinite weight: a loss that cannot be a number."""
    (workdir / "base").unlink()
    folder = make_tiny_model(workdir / "base")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = torch.inf
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_no_base(tmp_path: Path) -> None:
    code, error = failed(lay(tmp_path, tmp_path / "nothing", training_rows()))
    assert (code, error.code) == (ExitCode.FAULT, "invalid_base_model")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(28, os.strerror(28)), "disk_full"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 84288 vs 84176"), "disk_full"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (KeyError("x"), "trainer_fault"),
    ],
)
def test_faults_of_the_machine_have_stable_codes(error: Exception, code: str) -> None:
    known = as_trainer_error(error)
    assert (known.code, known.exit_code) == (code, ExitCode.FAULT)
    assert known.message.endswith(".")


def test_a_known_error_keeps_its_code() -> None:
    error = TrainerError("x", "y")
    assert as_trainer_error(error) is error
