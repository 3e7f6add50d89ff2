"""Alpaca: `{"instruction", "input"?, "output", "system"?, "history"?: [[question, answer], …], "kto_tag"?}`."""

from __future__ import annotations

from typing import cast

from burnish.datasets.base import Row
from burnish.datasets.converters.base import ChatExample, message, opening, string
from burnish.datasets.errors import NotConvertibleError


class Alpaca:
    """Instructions and their outputs; the input follows the instruction on a new line."""

    def matches(self, row: Row) -> bool:
        """Whether the row has an instruction and an output."""
        return "instruction" in row and "output" in row

    def convert(self, row: Row) -> ChatExample:
        """Return the conversation."""
        label = row.get("kto_tag")
        if label is not None and not isinstance(label, bool):
            raise NotConvertibleError("kto_tag: must be true or false")
        return ChatExample([*asked(row), message("assistant", string(row, "output"))], label=label)


def asked(row: Row) -> list[Row]:
    """Return system, history and question of a row. Raises NotConvertibleError."""
    instruction, more = string(row, "instruction"), string(row, "input", "")
    question = f"{instruction}\n{more}" if instruction and more else instruction or more
    return [*opening(row), *_history(row.get("history")), message("user", question)]


def _history(value: object) -> list[Row]:
    messages: list[Row] = []
    rounds = cast("list[object]", value) if isinstance(value, list) else []
    if value is not None and not isinstance(value, list):
        raise NotConvertibleError("history: must be a list of questions and answers")
    for index, item in enumerate(rounds):
        said = cast("list[object]", item) if isinstance(item, list) else []
        if len(said) != 2 or not all(isinstance(part, str) for part in said):
            raise NotConvertibleError(f"history[{index}]: must be a list of a question and its answer")
        messages += [message("user", str(said[0])), message("assistant", str(said[1]))]
    return messages
