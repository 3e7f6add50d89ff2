"""Every registered method trains for two steps, from rows to a result that loads by itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.trainer.samples import BESIDE, COMMON, SAMPLES
from tests.trainer.workdirs import events_of, jsonl, lay_out
from trainer.contract.events import StepEvent
from trainer.contract.methods import METHODS, METHODS_BY_TYPE
from trainer.contract.result import ADAPTER_FOLDER, REPORT_HTML, REPORT_JSON, ExitCode, read_manifest
from trainer.kit.stop import StopFlag
from trainer.run import run_training_job

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

NAMES = [method.model_fields["type"].default for method in METHODS]


def test_every_method_has_a_sample_and_every_sample_a_method() -> None:
    assert sorted(SAMPLES) == sorted(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_steps(name: str, tiny_base: Path, tmp_path: Path) -> None:
    rows, own = SAMPLES[name]
    method = {"type": name, name: {**BESIDE.get(name, {}), "hyperparameters": {**COMMON, **own}}}
    workdir = lay_out(tmp_path / "w", tiny_base, jsonl(rows), jsonl(rows), method=method, sample_count=1)
    assert run_training_job(workdir, StopFlag()) is ExitCode.DONE, events_of(workdir)[-1]

    steps = [event for event in events_of(workdir) if isinstance(event, StepEvent)]
    assert [step.step for step in steps] == [1, 2]
    assert all(math.isfinite(step.train_loss) and math.isfinite(step.grad_norm or 0) for step in steps)

    manifest = read_manifest(workdir)
    assert manifest.verify_files(workdir) == []
    report = json.loads((workdir / REPORT_JSON).read_text(encoding="utf-8"))
    assert report["method"] == name
    headline = report["comparison"][0]["name"]
    assert headline == (METHODS_BY_TYPE[name].headline or "loss"), "checkpoints would be compared by another measure"
    assert report["verification"]["max_abs_difference"] <= report["verification"]["tolerance"]
    html = (workdir / REPORT_HTML).read_text(encoding="utf-8")
    assert all(measure["label"] in html for measure in report["comparison"])

    assert_trained(workdir / ADAPTER_FOLDER, tiny_base, manifest.facts["kind"])


def assert_trained(folder: Path, base: Path, kind: Any) -> None:
    """Load the result as its card says, on a fresh base; it answers, and otherwise than what training began with."""
    start: Any = (
        AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
        if kind == "reward"
        else AutoModelForCausalLM.from_pretrained(base)
    )
    tokens = AutoTokenizer.from_pretrained(folder)("你好, what now?", return_tensors="pt")
    with torch.no_grad():
        before = start.eval()(**tokens).logits
        after = PeftModel.from_pretrained(start, str(folder)).eval()(**tokens).logits
    assert bool(torch.isfinite(after).all())
    assert before.shape == after.shape
    assert not torch.equal(before, after)
    # A new adapter's B matrices are zero: whatever they are now is training's.
    moved = {name: bool(w.any()) for name, w in load_file(folder / "adapter_model.safetensors").items()}
    assert all(moved[name] for name in moved if "lora_B" in name)
