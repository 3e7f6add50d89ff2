"""Checks of a base model's folder that need no model: what is there, whole, and the same as when it was added."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

_MOST_HEADER_BYTES = 100 << 20
"""What the safetensors library itself accepts."""
_TYPE_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I8": 1,
    "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
_SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt")
_SAMPLES, _SAMPLE_BYTES = 64, 4096
_COPY_AGAIN = "Copy it again from where it came from"


class BrokenBase(Exception):
    """A base cannot be used; the message is the sentence for its operator, with the way out."""


def check_base_folder(folder: Path) -> None:
    """Look at a folder in Hugging Face's layout. Raises BrokenBase."""
    if not folder.is_dir():
        raise BrokenBase(
            f"The base model's folder {folder} does not exist on this machine. Copy or mount it there, or name the "
            "folder that has the model's config.json."
        )
    try:
        _check_config(folder)
        _check_weights(folder)
        _check_tokenizer(folder)
    except PermissionError as error:
        raise _broken(
            folder, f"{error.filename} may not be read", "Let the user of this service read the folder's files"
        ) from error


def fingerprint_folder(folder: Path) -> dict[str, str]:
    """Return a hash of each file that a training depends on, by its name.

    Small files are hashed whole. Of weights it is size, header and samples all over them, which no training leaves as
    they are: times are not in it, so that copies on other machines have the same. Raises OSError.
    """
    small_files = {path for pattern in _SMALL_FILES for path in folder.glob(pattern) if path.is_file()}
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(small_files)}
    hashes |= {path.name: _sample_weights(path) for path in sorted(folder.glob("*.safetensors"))}
    return hashes


def stamp_folder(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of each file: cheap to ask again and again whether a look inside is worth it."""
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name: (entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries if entry.is_file()
            }
    except OSError:
        return {}


def list_changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of files that differ, are new or are gone."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def _check_config(folder: Path) -> None:
    path = folder / "config.json"
    if not path.is_file():
        if (folder / "adapter_config.json").is_file():
            raise _broken(
                folder, "it is a LoRA adapter, not a whole model", "Merge it into its base first, and name that folder"
            )
        if any(folder.glob("*.gguf")):
            raise _broken(
                folder,
                "it has a GGUF file alone",
                "Take the model that the file was made from, in Hugging Face's layout with safetensors",
            )
        raise _broken(folder, "config.json is missing", "Name the folder that has it, or copy it there")
    config = _read_json(folder, path)
    if not isinstance(config.get("model_type"), str):
        raise _broken(folder, "config.json has no model_type", _COPY_AGAIN)


def _check_tokenizer(folder: Path) -> None:
    if not any((folder / name).is_file() for name in _TOKENIZERS) and not any(folder.glob("*.tiktoken")):
        raise _broken(
            folder,
            "it has no tokenizer: none of tokenizer.json, tokenizer.model, vocab.json and vocab.txt is there",
            "Copy the tokenizer's files from the model's original folder into it",
        )
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
        if (folder / name).is_file():
            _read_json(folder, folder / name)


def _check_weights(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        _read_tensors(folder, folder / "model.safetensors")
    elif index.is_file():
        _check_shards(folder, index)
    else:
        raise _explain_no_weights(folder)


def _check_shards(folder: Path, index: Path) -> None:
    weight_map: Any = _read_json(folder, index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _broken(folder, f"{index.name} has no weight_map", _COPY_AGAIN)
    shards: dict[str, set[str]] = {}
    for tensor, shard in cast("dict[str, Any]", weight_map).items():
        shards.setdefault(str(shard), set()).add(tensor)
    absent = sorted(name for name in shards if not _lies_in(folder, name))
    if absent:
        raise _broken(
            folder,
            f"{len(absent)} of its {len(shards)} files of weights {'is' if len(absent) == 1 else 'are'} missing: "
            f"{', '.join(absent[:3])}",
            "Copy the missing ones from where the model came from",
        )
    for name, tensors in sorted(shards.items()):
        lacking = tensors - _read_tensors(folder, folder / name)
        if lacking:
            raise _broken(
                folder, f"{name} does not have the tensor {min(lacking)}, which {index.name} says is in it", _COPY_AGAIN
            )


def _lies_in(folder: Path, name: str) -> bool:
    return Path(name).name == name and (folder / name).is_file()


def _explain_no_weights(folder: Path) -> BrokenBase:
    stray = sorted(path.name for path in folder.glob("*.safetensors"))
    if any("-of-" in name for name in stray):
        return _broken(
            folder, "it has parts of weights and no model.safetensors.index.json", "Copy the index there as well"
        )
    if stray:
        return _broken(
            folder,
            f"its weights are in {stray[0]}, and only model.safetensors is read, or the parts that "
            "model.safetensors.index.json lists",
            "Name the file so, if it has the whole model",
        )
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        target = folder.with_name(f"{folder.name}-safetensors")
        return _broken(
            folder,
            f"its weights are pickled ({pickles[0]}), which may hold code and are never loaded",
            "If you trust them, convert them where transformers is installed, with "
            f'`python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
            f"M.from_pretrained('{folder}').save_pretrained('{target}'); "
            f"T.from_pretrained('{folder}').save_pretrained('{target}')\"`, and add {target}",
        )
    return _broken(folder, "it has no weights: model.safetensors is missing", "Copy it there")


def _read_tensors(folder: Path, path: Path) -> set[str]:
    """Return the names of a file's tensors, after a look at its header and its size. Raises BrokenBase."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start.startswith(b"version "):
            raise _broken(
                folder,
                f"{path.name} is a pointer of Git LFS and not the weights",
                "Fetch them with `git lfs pull` in that folder",
            )
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > _MOST_HEADER_BYTES or 8 + length > size:
            raise _broken(folder, f"{path.name} ({size:,} bytes) is cut off, or no safetensors file", _COPY_AGAIN)
        header = file.read(length)
    try:
        tensors: dict[str, Any] = json.loads(header)
        tensors.pop("__metadata__", None)
        ends = [_check_tensor(entry) for entry in tensors.values()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _broken(folder, f"the header of {path.name} is damaged", _COPY_AGAIN) from error
    full_size = 8 + length + max(ends, default=0)
    if size != full_size or not tensors:
        raise _broken(
            folder, f"{path.name} has {size:,} bytes, and by its header it should have {full_size:,}", _COPY_AGAIN
        )
    return set(tensors)


def _check_tensor(entry: dict[str, Any]) -> int:
    """Return where a tensor's bytes end. Raises ValueError, TypeError or KeyError if its numbers do not fit."""
    begin, end = (int(place) for place in entry["data_offsets"])
    width = _TYPE_BYTES.get(entry["dtype"])
    if not 0 <= begin <= end or (width is not None and end - begin != width * math.prod(entry["shape"])):
        raise ValueError("shape and bytes differ")
    return end


def _read_json(folder: Path, path: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise _broken(folder, f"{path.name} is not valid JSON{place}", _COPY_AGAIN) from error
    if not isinstance(content, dict):
        raise _broken(folder, f"{path.name} is not a JSON object", _COPY_AGAIN)
    return cast("dict[str, Any]", content)


def _sample_weights(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        start = file.read(8)
        digest.update(start + file.read(min(int.from_bytes(start, "little"), _MOST_HEADER_BYTES)))
        for place in range(_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * place // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _broken(folder: Path, problem: str, remedy: str) -> BrokenBase:
    return BrokenBase(f"The base model in {folder} cannot be used: {problem}. {remedy}.")
