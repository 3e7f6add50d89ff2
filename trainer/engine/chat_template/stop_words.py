"""The tokens that a model's generation ends at, by its own files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase


def read_stop_words(tokenizer: PreTrainedTokenizerBase, folder: Path | None) -> tuple[str, ...]:
    """Return the texts of the tokens that generation ends at: a model folder's, then the tokenizer's own."""
    ids = list(_read_eos_ids(folder)) if folder is not None else []
    if isinstance(tokenizer.eos_token_id, int):
        ids.append(tokenizer.eos_token_id)
    vocabulary = len(tokenizer)
    words = [str(tokenizer.convert_ids_to_tokens(number)) for number in ids if 0 <= number < vocabulary]
    return tuple(dict.fromkeys(words))


def _read_eos_ids(folder: Path) -> Iterable[int]:
    for name in ("generation_config.json", "config.json"):
        try:
            value: Any = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        eos: Any = cast("dict[str, Any]", value).get("eos_token_id") if isinstance(value, dict) else None
        if eos is not None:
            return list_ids(eos)
    return ()


def list_ids(value: int | list[int] | None) -> list[int]:
    """Return the ids of a configuration's end token, which may be one, several or none."""
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)
