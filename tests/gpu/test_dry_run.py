"""The program for GPUs, on a CPU: every part runs, and the page says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gpu import __main__ as program
from tests.gpu.__main__ import compare_methods, find_slow_paths, main

pytestmark = pytest.mark.slow


def test_every_part_runs_without_a_gpu(tmp_path: Path) -> None:
    page = tmp_path / "gpu.md"
    asked = ["--dry-run", "--seconds", "900", "--page", str(page)]
    assert main([*asked, "--methods", "supervised", "grpo", "--works", "dpo", "ppo"]) == 0
    text = page.read_text(encoding="utf-8")
    assert "NO GPU: a dry run on the CPU" in text
    assert "failed" not in text
    for method in ("supervised", "grpo"):
        assert text.count(f"| {method} | float32 |") == text.count(f"| {method} | bfloat16 |") == 1
    assert "| DPO | ratio |" in text
    assert "TRL has no PPO since 1.13" in text


def test_a_loss_that_differs_and_a_part_that_fails_are_named() -> None:
    cpu = {f"supervised {dtype}": {"code": 0, "losses": [2.0, 1.0]} for dtype in ("float32", "bfloat16")}
    gpu: dict[str, Any] = {**cpu, "supervised float32": {"code": 0, "losses": [2.0, 1.01]}}
    grid, wrong = compare_methods(cpu, gpu, ["supervised"])
    assert wrong == ["supervised float32"]
    assert [row[-1] for row in grid.rows] == ["NO", "yes"]
    grid, wrong = compare_methods(cpu, {"failed": "no time was left"}, ["supervised"])
    assert wrong == ["supervised float32", "supervised bfloat16"]
    assert [row[-1] for row in grid.rows] == ["no time was left"] * 2
    failed = {**cpu, "supervised bfloat16": {"code": 3, "error": "out of memory", "losses": []}}
    assert compare_methods(cpu, failed, ["supervised"])[1] == ["supervised bfloat16"]


def test_slow_paths_are_named() -> None:
    good = {"attention": "sdpa", "head": "bfloat16", "checkpointing": "on"}
    assert find_slow_paths({"lora": {"burnish": good}}) == []
    assert find_slow_paths({"lora": {"burnish": {**good, "attention": "eager"}}}) == [
        "supervised, LoRA: attention eager"
    ]
    assert find_slow_paths({"dpo": {"burnish": {"failed": "x"}}}) == ["DPO failed"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "gpu.md"
    assert main(["--page", str(page)]) == 2
    assert "no CUDA device here" in capsys.readouterr().err
    assert not page.exists()
    assert program.PAGE.is_file()
