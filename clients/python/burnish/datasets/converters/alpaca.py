"""Alpaca: `{"instruction", "input"?, "output", "system"?, "history"?: [[question, answer], …], "kto_tag"?}`."""

from __future__ import annotations

from typing import cast

from burnish.datasets.base import Row
from burnish.datasets.converters.base import ChatExample, make_message, require_string, system_messages
from burnish.datasets.errors import NotConvertibleError


class AlpacaConverter:
    """Instructions and their outputs; the input follows the instruction on a new line."""

    def matches_row(self, row: Row) -> bool:
        """Whether the row has an instruction and an output."""
        return "instruction" in row and "output" in row

    def convert_row(self, row: Row) -> ChatExample:
        """Return `instruction`, `input`, `output` and `history` as a conversation."""
        label = row.get("kto_tag")
        if label is not None and not isinstance(label, bool):
            raise NotConvertibleError("kto_tag: must be true or false")
        return ChatExample(
            [*prompt_messages(row), make_message("assistant", require_string(row, "output"))], label=label
        )


def prompt_messages(row: Row) -> list[Row]:
    """Return system, history and question of a row. Raises NotConvertibleError."""
    instruction, more = require_string(row, "instruction"), require_string(row, "input", "")
    question = f"{instruction}\n{more}" if instruction and more else instruction or more
    return [*system_messages(row), *_history_messages(row.get("history")), make_message("user", question)]


def _history_messages(value: object) -> list[Row]:
    messages: list[Row] = []
    rounds = cast("list[object]", value) if isinstance(value, list) else []
    if value is not None and not isinstance(value, list):
        raise NotConvertibleError("history: must be a list of questions and answers")
    for index, item in enumerate(rounds):
        pair = cast("list[object]", item) if isinstance(item, list) else []
        if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise NotConvertibleError(f"history[{index}]: must be a list of a question and its answer")
        messages += [make_message("user", str(pair[0])), make_message("assistant", str(pair[1]))]
    return messages
