"""What a child of the worker is given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.kit.settings import Settings
from service.staging.child import trainer_environment


@pytest.mark.parametrize(
    ("setting", "variable", "threads"), [(3, "5", "3"), (None, "5", "5"), (None, None, str(os.cpu_count()))]
)
def test_a_trainers_threads(
    setting: int | None, variable: str | None, threads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    settings = Settings(data=tmp_path, trainer_threads=setting)
    assert trainer_environment(settings, tmp_path)["OMP_NUM_THREADS"] == threads
