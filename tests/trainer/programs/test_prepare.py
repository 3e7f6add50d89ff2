"""`python -m trainer.programs.prepare` on folders; `test_real_base.py` prepares the real GGUF."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.fixtures.preloaded import start_preloaded
from tests.trainer.workdirs import environment

pytestmark = pytest.mark.integration


def prepare(tmp_path: Path, source: object) -> tuple[subprocess.CompletedProcess[str], Path]:
    described = tmp_path / "source.json"
    described.write_text(json.dumps(source))
    target = tmp_path / "bases" / "made"
    command = [*start_preloaded().command("trainer.programs.prepare"), str(described), str(target)]
    child = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=120)
    return child, target


def test_a_folder(tmp_path: Path, tiny_base: Path) -> None:
    child, target = prepare(tmp_path, {"kind": "folder", "path": str(tiny_base)})
    assert child.returncode == 0, child.stderr
    info = json.loads((target / "base.json").read_text())
    assert len(info["fingerprint"]) == 64
    assert info["context_length"] == 512
    assert str(tmp_path) not in json.dumps(info)
    weights = load_file(target / "model.safetensors")
    assert weights.keys() == load_file(tiny_base / "model.safetensors").keys()
    assert [path.name for path in target.parent.iterdir()] == ["made"]


def test_pickled_weights_are_refused_and_nothing_is_left(tmp_path: Path, tiny_base: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    for path in tiny_base.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    child, target = prepare(tmp_path, {"kind": "folder", "path": str(folder)})
    assert child.returncode == 2
    assert "safetensors" in child.stderr.splitlines()[-1]
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ({"kind": "gguf", "path": "/nowhere/x.gguf"}, "there is no file x.gguf"),
        ({"kind": "folder", "path": "/nowhere"}, "there is no folder nowhere"),
        ({"kind": "hf", "repo": "../etc", "revision": "main"}, "does not describe"),
    ],
)
def test_missing_sources_are_one_sentence(tmp_path: Path, source: object, word: str) -> None:
    child, target = prepare(tmp_path, source)
    assert child.returncode == 2
    assert word in child.stderr
    assert "Traceback" not in child.stderr
    assert not target.exists()
