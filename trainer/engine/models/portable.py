"""What a folder of a result says to other programs: transformers 4, and servers that are built on it.

transformers 5 writes some facts under names that version 4 does not read, without a word: a model's rotary base then is
the default, and its answers are noise. And a base's own end token may not be the one that its chat template ends a turn
with: a program that stops at nothing else would let the tuned model write on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from trainer.engine.chat_template.end_of_turn import stop_ids
from trainer.engine.chat_template.render import ChatTemplate

_PARTS = ("text_config", "vision_config", "audio_config")


def make_portable(folder: Path, tokenizer: PreTrainedTokenizerBase, eos: int | list[int] | None = None) -> None:
    """Complete the configuration files that transformers saved in `folder`, before they are hashed.

    `eos` is what the model itself ends at; the template's end of turn is added to it.
    """
    template = _open_template(tokenizer)
    stops = stop_ids(template, eos) if template else ()
    _edit_json(folder / "tokenizer_config.json", lambda facts: _describe_tokenizer(facts, template))
    _edit_json(folder / "config.json", _describe_rotation)
    if stops:
        # Beside an adapter too, if there is none: its card says how to use it.
        _edit_json(folder / "generation_config.json", lambda facts: facts.update(eos_token_id=list(stops)), new=True)


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id of the token that its chat template ends an answer with; None if there is none."""
    template = _open_template(tokenizer)
    end = template and template.end_of_turn
    return None if end is None else cast(int, tokenizer.convert_tokens_to_ids(end))


def _open_template(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate | None:
    return ChatTemplate(tokenizer) if tokenizer.chat_template else None


def own_eos(model: Any) -> int | list[int] | None:
    """Return what a model itself ends at; None if it is no language model, or says nothing."""
    return getattr(getattr(model, "generation_config", None), "eos_token_id", None)


def _edit_json(path: Path, edit: Callable[[dict[str, Any]], object], *, new: bool = False) -> None:
    if not new and not path.is_file():
        return
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    edit(facts)
    path.write_text(json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _describe_tokenizer(facts: dict[str, Any], template: ChatTemplate | None) -> None:
    # A name of version 5 alone, for a class that both have.
    if facts.get("tokenizer_class") == "TokenizersBackend":
        facts["tokenizer_class"] = "PreTrainedTokenizerFast"
    # A list under this name ends the load in version 4; the older name has the same meaning in both.
    if isinstance(facts.get("extra_special_tokens"), list):
        facts["additional_special_tokens"] = facts.pop("extra_special_tokens")
    if template is not None and template.end_of_turn:
        facts["eos_token"] = template.end_of_turn


def _describe_rotation(facts: dict[str, Any]) -> None:
    for part in _PARTS:
        if isinstance(facts.get(part), dict):
            _describe_rotation(facts[part])
    rotation = facts.get("rope_parameters")
    if not isinstance(rotation, dict):
        return
    shared = cast("dict[str, Any]", rotation)
    # Families with two kinds of layers have one set of numbers for each.
    whole, local = shared.get("full_attention", shared), shared.get("sliding_attention")
    if "rope_theta" in whole:
        facts.setdefault("rope_theta", whole["rope_theta"])
    if "partial_rotary_factor" in whole:
        facts.setdefault("partial_rotary_factor", whole["partial_rotary_factor"])
    if whole.get("rope_type", "default") != "default":
        scaling = {name: value for name, value in whole.items() if name not in ("rope_theta", "partial_rotary_factor")}
        facts.setdefault("rope_scaling", scaling)
    if isinstance(local, dict) and "rope_theta" in local:
        facts.setdefault("rope_local_base_freq", cast("dict[str, Any]", local)["rope_theta"])
