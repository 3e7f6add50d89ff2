"""The tokens that end an answer, and those that the template writes behind one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from transformers import PreTrainedTokenizerBase

from trainer.contract.rows import ChatRow, Message
from trainer.engine.chat_template.abilities import make_word

if TYPE_CHECKING:
    from trainer.engine.chat_template.render import ChatTemplate


def closing_ids(template: ChatTemplate) -> tuple[int, ...]:
    """Return the tokens behind an assistant's content in a row: its end of turn and what the template adds."""
    word = make_word(0)
    row = ChatRow(messages=(Message(role="user", content="a"), Message(role="assistant", content=word)))
    text = template.render_row(row)[-1]
    return tuple(template.tokenizer(text.rpartition(word)[2], add_special_tokens=False)["input_ids"])


def stop_ids(template: ChatTemplate, known: int | list[int] | None) -> tuple[int, ...]:
    """Return the ids that end an answer: the model's own, the tokenizer's, and the template's ends of turns."""
    tokenizer = template.tokenizer
    stops = set(_as_list(known))
    if isinstance(tokenizer.eos_token_id, int):
        stops.add(tokenizer.eos_token_id)
    for word in template.ends_of_turns:
        found = tokenizer.convert_tokens_to_ids(word)
        assert isinstance(found, int)
        stops.add(found)
    return tuple(sorted(stops))


def read_stop_words(tokenizer: PreTrainedTokenizerBase, folder: Path | None) -> tuple[str, ...]:
    """Return the texts of the tokens that generation ends at: a model folder's, then the tokenizer's own."""
    found = list(_read_eos_ids(folder)) if folder is not None else []
    if isinstance(tokenizer.eos_token_id, int):
        found.append(tokenizer.eos_token_id)
    vocabulary = len(tokenizer)
    words = [str(tokenizer.convert_ids_to_tokens(number)) for number in found if 0 <= number < vocabulary]
    return tuple(dict.fromkeys(words))


def _read_eos_ids(folder: Path) -> Iterable[int]:
    for name in ("generation_config.json", "config.json"):
        try:
            value: Any = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        eos: Any = cast("dict[str, Any]", value).get("eos_token_id") if isinstance(value, dict) else None
        if eos is not None:
            return _as_list(eos)
    return ()


def _as_list(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)
