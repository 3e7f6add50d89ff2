"""Each kind of fault in a base's folder is one sentence that names the file and the way out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.fixtures.tiny_families import make_tiny_family
from trainer.engine.models.base_checks import check_base, load_checked
from trainer.engine.models.weights import count_weights
from trainer.kit.errors import TrainerError


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "基座"))


def change_json(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    found = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def name_missing_file(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def remove_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def remove_end(folder: Path) -> None:
    change_json(folder, "tokenizer_config.json", eos_token=None, pad_token=None)


def add_token(folder: Path, word: str) -> None:
    path = folder / "tokenizer.json"
    described = json.loads(path.read_text())
    described["added_tokens"].append({**described["added_tokens"][0], "id": 259, "content": word})
    path.write_text(json.dumps(described))


def put_end_beyond(folder: Path) -> None:
    add_token(folder, "<|结束|>")
    change_json(folder, "tokenizer_config.json", eos_token="<|结束|>", pad_token="<|结束|>")


def write_template(folder: Path, text: str) -> None:
    (folder / "chat_template.jinja").write_text(text)


FAULTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no folder": (shutil.rmtree, "base_not_found", "there is no folder 基座"),
    "no config": (lambda f: (f / "config.json").unlink(), "base_not_found", "the folder 基座 has no config.json"),
    "broken config": (
        lambda f: (f / "config.json").write_text("{"),
        "invalid_base_model",
        "config.json is not valid JSON",
    ),
    "no type": (
        lambda f: change_json(f, "config.json", model_type=None),
        "invalid_base_model",
        "config.json names no model_type",
    ),
    "foreign type": (
        lambda f: change_json(f, "config.json", model_type="klingon"),
        "invalid_base_model",
        "klingon",
    ),
    "encoder": (
        lambda f: change_json(f, "config.json", model_type="bert"),
        "invalid_base_model",
        "family bert cannot be trained here: they are encoders",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "invalid_base_model", "copy the *.safetensors files"),
    "pickled weights": (pickle_weights, "invalid_base_model", "pickled ones (pytorch_model.bin)"),
    "cut off weights": (cut_off, "invalid_base_model", "model.safetensors has"),
    "missing shard": (name_missing_file, "invalid_base_model", "such as model-00002-of-00002.safetensors"),
    "no tokenizer": (remove_tokenizer, "invalid_base_model", "it has no tokenizer files: copy tokenizer.json"),
    "no end": (remove_end, "invalid_base_model", "neither an end token nor a padding token"),
    "end beyond": (
        put_end_beyond,
        "invalid_base_model",
        "1 token(s) beyond the embedding's 259 rows, such as <|结束|>",
    ),
    "bytes beyond": (
        lambda f: change_json(f, "config.json", vocab_size=200),
        "invalid_base_model",
        "59 token(s) beyond the embedding's 200 rows",
    ),
    "raising template": (
        lambda f: write_template(f, "{{ raise_exception('只会说不') }}"),
        "unsupported_chat_template",
        "只会说不",
    ),
    "failing template": (
        lambda f: write_template(f, "{{ 1 / 0 }}{{ messages }}"),
        "unsupported_chat_template",
        "fails on a plain conversation",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence(base: Path, fault: str) -> None:
    put_fault, code, said = FAULTS[fault]
    put_fault(base)
    with pytest.raises(TrainerError) as caught:
        check_base(base)
    assert caught.value.code == code
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert str(base.parent) not in caught.value.message


def test_a_good_base_has_a_card(base: Path) -> None:
    card = check_base(base)
    assert card.family == "llama"
    assert card.known
    assert (
        card.parameters == count_weights(base) == sum(w.numel() for w in load_file(base / "model.safetensors").values())
    )
    assert card.context_length == 512
    assert card.targets.left_out == ()
    assert all(fit.works for fit in card.methods.values())
    assert card.notes == ()


def test_weights_that_files_lack_are_named(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainerError, match=r"lack 1 of the weights .* such as model\.layers\.1\.mlp\.up_proj\.weight"):
        load_checked(base)


def test_weights_of_another_shape_are_a_sentence(base: Path) -> None:
    change_json(base, "config.json", intermediate_size=96)
    with pytest.raises(TrainerError, match="its weights do not load"):
        load_checked(base)


def test_an_image_s_token_may_lie_beyond_a_text_model_s_embedding(base: Path) -> None:
    add_token(base, "<image>")
    assert check_base(base).known


def test_an_unknown_family_that_reads_both_ways_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.engine.models import family_table

    base = make_tiny_family("bert", tmp_path / "b")
    monkeypatch.delitem(family_table.FAMILIES, "bert")
    with pytest.raises(TrainerError, match="read a text in both directions"):
        load_checked(base)
