"""The real base model: its GGUF file prepared, its tokenizer's masks exact, a short training that learns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.catalog import load_catalog, locate_source
from tests.trainer.workdirs import REPOSITORY, environment, events_of, jsonl, lay_out, run
from trainer.contract.events import EvaluationEvent
from trainer.contract.rows import ChatRow

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

TICKETS = REPOSITORY / "examples" / "ticket_triage"
END = "<|im_end|>"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalog's base, prepared from its package as the worker does it."""
    entry = load_catalog(None).find_base("smollm2-135m-instruct")
    assert entry is not None
    folder = tmp_path_factory.mktemp("bases")
    (folder / "source.json").write_text(json.dumps(locate_source(entry.source)))
    command = [sys.executable, "-m", "trainer.programs.prepare", str(folder / "source.json"), str(folder / "base")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "base"


def test_the_prepared_folder_is_safe_and_whole(smollm2: Path) -> None:
    names = {path.name for path in smollm2.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "base.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".gguf"))]
    assert "quantization_config" not in json.loads((smollm2 / "config.json").read_text())


def test_every_row_of_the_demo_trains_on_its_answer_alone(smollm2: Path) -> None:
    from trainer.engine.chat_template.render import ChatTemplate
    from trainer.engine.data.row_renderer import tokenize_rows
    from trainer.engine.data.tokens import IGNORED
    from trainer.engine.models.load import load_tokenizer

    chat = ChatTemplate(load_tokenizer(smollm2))
    lines = (TICKETS / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [ChatRow.model_validate({**json.loads(line), "line": n}) for n, line in enumerate(lines, 1)]
    for row, tokenized in zip(rows, tokenize_rows(chat, rows), strict=True):
        trained = [label for label in tokenized.labels if label != IGNORED]
        assert chat.tokenizer.decode(trained) == f"{row.messages[-1].content}{END}"


def test_a_short_training_learns(smollm2: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (TICKETS / "train.jsonl").read_text(encoding="utf-8").splitlines()[:24]]
    workdir = lay_out(
        tmp_path / "w", smollm2, jsonl(rows), jsonl(rows[:6]), {"n_epochs": 1, "batch_size": 4}, sample_count=1
    )
    child = run(workdir)
    assert child.returncode == 0, child.stderr.decode()[-3000:]
    evaluations = [event for event in events_of(workdir) if isinstance(event, EvaluationEvent) and event.full]
    base = next(event for event in evaluations if event.model == "base")
    assert evaluations[-1].model == "tuned"
    assert base.valid_loss is not None
    assert evaluations[-1].valid_loss is not None
    assert evaluations[-1].valid_loss < base.valid_loss
    assert (workdir / "output" / "adapter" / "adapter_model.safetensors").is_file()
