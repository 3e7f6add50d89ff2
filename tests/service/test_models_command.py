"""`burnish-server models`: bases of folders and of a hub are checked, added, listed and removed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service.bases import repository
from service.context import Context
from service.kit.db import Database
from service.tables.audit import AuditRow
from service.tables.keys import ProjectRow
from service.tables.models import FineTunedModelRow
from tests.fixtures.hub import Hub, run_hub
from tests.fixtures.preloaded import start_preloaded
from tests.fixtures.processes import clean_environment
from tests.fixtures.service import make_context

pytestmark = pytest.mark.integration
NEW_TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    opened = make_context(tmp_path)
    yield opened
    opened.db.close()


@pytest.fixture
def folder(tmp_path: Path, tiny_base: Path) -> Path:
    return shutil.copytree(tiny_base, tmp_path / "My Model 模型")


def models(context: Context, *arguments: object, **environment: str) -> tuple[int, str, str]:
    settings = {"BURNISH_DATA": str(context.settings.data), "BURNISH_CATALOG": str(context.settings.catalog)}
    command = [start_preloaded().python, "-m", "service", "models", *map(str, arguments)]
    variables = clean_environment(**settings, **environment) | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def train_on(db: Database, base: str) -> None:
    with db.write() as session:
        session.add(ProjectRow(id="proj_a", name="项目"))
        session.flush()
        columns: dict[str, Any] = {"project_id": "proj_a", "kind": "adapter", "blob_prefix": "jobs/x"}
        session.add(FineTunedModelRow(id=f"ft:{base}:burnish::1", base=base, job_id="ftjob-1", **columns))


def test_a_folder_is_added_seen_by_open_processes_and_removed(context: Context, folder: Path) -> None:
    assert context.catalog.find_base("my-model") is None
    status, out, err = models(context, "check", folder)
    assert (status, err) == (0, "")
    assert "llama, LlamaForCausalLM" in out
    assert "<|im_end|> (2)" in out
    assert context.catalog.find_base("my-model") is None

    status, out, err = models(context, "add", folder, "--license", "MIT")
    assert (status, out.splitlines()[-1]) == (0, "Added as my-model. Jobs may start from it now."), err
    entry = context.catalog.find_base("my-model")
    assert entry is not None
    assert (entry.license, entry.place) == ("MIT", str(folder))
    with context.db.read() as session:
        card = repository.card_of(repository.find_base_row(session, "my-model"), entry)
        actions = session.scalars(select(AuditRow.type)).all()
    assert card is not None
    assert (card.family, list(actions)) == ("llama", ["base_model.added"])
    assert f"my-model\t{folder}\tadded\tready" in models(context, "list")[1].splitlines()

    again = models(context, "add", folder)
    assert (again[0], "There is a base model my-model already" in again[2]) == (1, True)
    (folder / "added.jinja").write_text("")
    assert models(context, "add", folder, "--replace", "--chat-template", write(folder, NEW_TEMPLATE))[0] == 0
    replaced = context.catalog.find_base("my-model")
    assert replaced is not None

    train_on(context.db, "my-model")
    protected = models(context, "add", folder, "--replace")
    assert (protected[0], "1 model(s) or job(s) lie on the base model my-model" in protected[2]) == (1, True)
    unsure = models(context, "remove", "my-model")
    assert unsure[0] == 1
    assert "my-model is removed.\n" in models(context, "remove", "my-model", "--yes")[1]
    assert "There is no base model my-model" in models(context, "remove", "my-model")[2]
    assert "named by the catalog file" in models(context, "remove", "tiny")[2]


def write(folder: Path, template: str) -> Path:
    path = folder.parent / "template.jinja"
    path.write_text(template)
    return path


def test_an_id_of_the_catalog_file_is_taken_over_only_if_it_is_said(context: Context, folder: Path) -> None:
    assert "There is a base model tiny already" in models(context, "add", folder, "--id", "tiny")[2]
    assert models(context, "add", folder, "--id", "tiny", "--replace")[0] == 0
    entry = context.catalog.find_base("tiny")
    assert entry is not None
    assert [base.id for base in context.catalog.models] == ["tiny"]
    assert entry.place == str(folder)
    models(context, "remove", "tiny", "--yes")
    entry = context.catalog.find_base("tiny")
    assert entry is not None


REFUSED = {
    "a missing folder": (["add", "/nowhere/模型"], "/nowhere/模型 does not exist on this machine"),
    "an id": (["add", "{folder}", "--id", "Ä b"], "cannot be the id of a base model"),
    "a template that is not there": (["add", "{folder}", "--chat-template", "/no.jinja"], "/no.jinja cannot be read"),
    "a revision of a folder": (["check", "{folder}", "--revision", "v1"], "--revision is for models of the hub"),
    "a template that raises": (
        ["check", "{folder}", "--chat-template", "{bad}"],
        "chat template fails on a plain conversation",
    ),
    "cut weights": (["check", "{cut}"], "by its header it should have"),
    "no network": (["add", "org/model"], "http://127.0.0.1:9 does not answer. Check the network"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_added_is_one_sentence(context: Context, folder: Path, tmp_path: Path, case: str) -> None:
    arguments, sentence = REFUSED[case]
    bad, cut = tmp_path / "bad.jinja", shutil.copytree(folder, tmp_path / "cut")
    bad.write_text("{% endfor %}")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-1])
    filled = [part.format(folder=folder, bad=bad, cut=cut) for part in arguments]
    status, out, err = models(context, *filled, HF_ENDPOINT="http://127.0.0.1:9")
    assert (status, out) == (1, "")
    assert sentence in err
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if not line.startswith("Fetching")]
    assert line.startswith("burnish-server: ")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    full = shutil.copytree(tiny_base, root / "full")
    for name in ("modeling_tiny.py", "pytorch_model.bin", "consolidated.safetensors", "README.md"):
        (full / name).write_text("不要")
    pickled = shutil.copytree(tiny_base, root / "pickled", ignore=shutil.ignore_patterns("*.safetensors"))
    (pickled / "pytorch_model.bin").write_bytes(b"pickle")
    with run_hub({"org/Tiny-Chat": full, "org/pickled": pickled}) as running:
        yield running


def test_a_model_of_the_hub_is_pinned_to_its_commit(context: Context, hub: Hub) -> None:
    status, out, err = models(context, "check", "org/Tiny-Chat", HF_ENDPOINT=hub.url)
    assert (status, "LlamaForCausalLM" in out) == (0, True), err
    assert not any("GET" in seen and seen.endswith("model.safetensors") for seen in hub.requests)
    status, out, err = models(context, "add", "org/Tiny-Chat@v1.0", HF_ENDPOINT=hub.url)
    assert (status, "Added as tiny-chat" in out) == (0, True), err
    entry = context.catalog.find_base("tiny-chat")
    assert entry is not None
    assert entry.source.model_dump() == {"kind": "hf", "repo": "org/Tiny-Chat", "revision": Hub.COMMIT}
    (folder,) = (path for path in context.settings.hub.iterdir() if not path.name.endswith("-files"))
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert names >= {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"}
    assert not names & {"modeling_tiny.py", "pytorch_model.bin", "consolidated.safetensors", "README.md"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("org/pickled", "its weights are pickled (pytorch_model.bin)"),
        ("org/none", "there is no such model, or it is private"),
        ("gated/model", "it is gated. Accept its terms on the hub, and set HF_TOKEN"),
        ("org/Tiny-Chat@no-such-branch", "it has no such revision"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(context: Context, hub: Hub, name: str, sentence: str) -> None:
    status, out, err = models(context, "add", name, HF_ENDPOINT=hub.url)
    assert (status, out, sentence in err) == (1, "", True), err
    assert "Traceback" not in err
