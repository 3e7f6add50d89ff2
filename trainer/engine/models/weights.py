"""What a base's safetensors files say of themselves in their headers: no weight is read."""

from __future__ import annotations

import json
import math
from pathlib import Path

from safetensors import SafetensorError, safe_open

from trainer.kit.errors import TrainerError

INDEX_NAME = "model.safetensors.index.json"


def count_weights(folder: Path) -> int:
    """Return how many parameters the folder's safetensors files hold, from their headers.

    Raises TrainerError (`invalid_base_model`) as `weight_files` does.
    """
    total = 0
    for path in weight_files(folder):
        with safe_open(path, "pt") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no dict
    return total


def weight_files(folder: Path) -> list[Path]:
    """Return the folder's safetensors files; each is whole, and none that the index names is missing.

    Raises TrainerError (`invalid_base_model`), naming the file and the way out.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")))
        raise invalid_base(
            f"it has no weights in safetensors but pickled ones ({pickled[0]}), which can run code: convert them "
            "where you trust it, with `model = AutoModelForCausalLM.from_pretrained(FOLDER)` and "
            "`model.save_pretrained(NEW_FOLDER)`, and name the new folder"
            if pickled
            else "it has no weights in safetensors: copy the *.safetensors files into it"
        )
    for path in files:
        _require_whole(path)
    index = folder / INDEX_NAME
    if index.is_file():
        shards = _read_index(index)
        if missing := sorted(shards - {path.name for path in files}):
            raise invalid_base(
                f"{INDEX_NAME} names {len(missing)} file(s) that are missing, such as {missing[0]}: copy them too"
            )
    return files


def invalid_base(reason: str) -> TrainerError:
    """Return the error that says why a base model cannot be used."""
    return TrainerError("invalid_base_model", f"The base model cannot be used: {reason}.", param="model")


def _require_whole(path: Path) -> None:
    try:
        with safe_open(path, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise invalid_base(
            f"{path.name} has {path.stat().st_size} bytes and is cut off or damaged ({error}): copy it again"
        ) from error


def _read_index(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise invalid_base(f"{INDEX_NAME} is damaged ({error}): copy or download it again") from error
