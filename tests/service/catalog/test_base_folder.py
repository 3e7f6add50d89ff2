"""Each kind of broken folder is one sentence that names it, what is wrong and the way out; a whole one passes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from service.catalog.base_folder import (
    BrokenBase,
    check_base_folder,
    fingerprint_folder,
    list_changed_files,
    stamp_folder,
)

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Fault = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path, tiny_base: Path) -> Path:
    return shutil.copytree(tiny_base, tmp_path / "模型 x")


def write(name: str, content: str | bytes) -> Fault:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def remove(*names: str) -> Fault:
    return lambda folder: [(folder / name).unlink() for name in names]


def cut(name: str, size: int) -> Fault:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def header(content: object, data: bytes = b"") -> bytes:
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + data


def both(*faults: Fault) -> Fault:
    return lambda folder: [fault(folder) for fault in faults]


def shard(*, missing: bool = False, stray: bool = False) -> Fault:
    """Put the weights into two parts with an index; one may be missing, or lack a tensor."""

    def split(folder: Path) -> None:
        tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
        (folder / WEIGHTS).unlink()
        for number in (1,) if missing else (1, 2):
            (folder / f"model-{number}.safetensors").write_bytes(header({f"t{number}": tensor}, b"1234"))
        weight_map = {"t1": "model-1.safetensors", "t3" if stray else "t2": "model-2.safetensors"}
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))

    return split


FLOAT = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
FAULTS: dict[str, tuple[Fault, str]] = {
    "no config": (remove("config.json"), "config.json is missing"),
    "an adapter": (both(remove("config.json"), write("adapter_config.json", "{}")), "LoRA adapter"),
    "a GGUF": (both(remove("config.json"), write("m.gguf", "GGUF")), "GGUF file alone"),
    "a broken config": (write("config.json", '{"model_type": "llama",\n'), r"config.json is not valid JSON \(line 2\)"),
    "a list for a config": (write("config.json", "[]"), "config.json is not a JSON object"),
    "no family": (write("config.json", "{}"), "config.json has no model_type"),
    "no weights": (remove(WEIGHTS), "model.safetensors is missing"),
    "pickles": (both(remove(WEIGHTS), write("pytorch_model.bin", b"x")), "pickled .*save_pretrained"),
    "parts without their index": (
        both(remove(WEIGHTS), write("model-00001-of-00002.safetensors", b"x")),
        "parts of weights and no model.safetensors.index.json",
    ),
    "another name": (both(remove(WEIGHTS), write("weights.safetensors", b"x")), "only model.safetensors is read"),
    "empty weights": (write(WEIGHTS, b""), r"model.safetensors \(0 bytes\) is cut off"),
    "a cut header": (cut(WEIGHTS, 100), r"model.safetensors \(100 bytes\) is cut off"),
    "cut weights": (cut(WEIGHTS, 20_000), "has 20,000 bytes, and by its header it should have [0-9,]+"),
    "more than the header says": (write(WEIGHTS, header({"a": FLOAT}, b"x" * 9)), "by its header it should have"),
    "a Git LFS pointer": (write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"),
    "a header that is no JSON": (write(WEIGHTS, (4).to_bytes(8, "little") + b"nope"), "header of .* is damaged"),
    "shape and bytes": (write(WEIGHTS, header({"a": FLOAT | {"shape": [3]}}, b"x" * 8)), "header of .* is damaged"),
    "no tensor": (write(WEIGHTS, header({"__metadata__": {}})), "by its header"),
    "a missing shard": (shard(missing=True), "1 of its 2 files of weights is missing: model-2.safetensors"),
    "a shard without its tensor": (shard(stray=True), "model-2.safetensors does not have the tensor t3"),
    "an index without a map": (both(remove(WEIGHTS), write(INDEX, "{}")), "has no weight_map"),
    "a shard elsewhere": (
        both(remove(WEIGHTS), write(INDEX, '{"weight_map": {"a": "../other/model.safetensors"}}')),
        "1 of its 1 files of weights is missing",
    ),
    "no tokenizer": (remove("tokenizer.json"), "it has no tokenizer"),
    "a broken tokenizer": (write("tokenizer.json", "{"), "tokenizer.json is not valid JSON"),
    "a broken tokenizer config": (write("tokenizer_config.json", '{"a"'), "tokenizer_config.json is not valid JSON"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_broken_is_a_sentence_with_the_way_out(folder: Path, fault: str) -> None:
    break_folder, sentence = FAULTS[fault]
    check_base_folder(folder)
    break_folder(folder)
    with pytest.raises(BrokenBase, match=sentence) as caught:
        check_base_folder(folder)
    message = str(caught.value)
    assert message.startswith(f"The base model in {folder} cannot be used: ")
    assert len(message.partition(". ")[2]) > 10, "no way out"
    assert message.endswith(".")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrokenBase, match=re.escape(f"{tmp_path / '无'} does not exist on this machine")):
        check_base_folder(tmp_path / "无")


def test_a_base_without_a_chat_template_is_not_broken(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    check_base_folder(folder)


def test_weights_in_parts_are_whole(folder: Path) -> None:
    shard()(folder)
    check_base_folder(folder)


def test_a_fingerprint_notices_every_file_that_counts_and_no_time(folder: Path, tmp_path: Path) -> None:
    before, copy = fingerprint_folder(folder), shutil.copytree(folder, tmp_path / "copy")
    assert list_changed_files(before, fingerprint_folder(copy)) == []
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        path = copy / name
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        assert list_changed_files(before, fingerprint_folder(copy)) == [name]
        path.write_bytes(content)
    weights = bytearray((copy / WEIGHTS).read_bytes())
    weights[-200:] = bytes(byte ^ 1 for byte in weights[-200:])  # the size and the header stay
    (copy / WEIGHTS).write_bytes(weights)
    (copy / "README.md").write_text("说明")
    (copy / "added.jinja").write_text("")
    assert list_changed_files(before, fingerprint_folder(copy)) == ["added.jinja", WEIGHTS]
    assert stamp_folder(folder) != stamp_folder(copy)
    assert stamp_folder(tmp_path / "none") == {}
