"""Alpaca: `{"instruction", "input"?, "output", "system"?, "history"?: [[question, answer], …], "kto_tag"?}`."""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.converters.base import ChatExample, label_of, make_message, require_string
from burnish.datasets.converters.prompts import prompt_messages


class AlpacaConverter:
    """Instructions and their outputs; the input follows the instruction on a new line."""

    def matches_row(self, row: Row) -> bool:
        """Whether the row has an instruction and an output."""
        return "instruction" in row and "output" in row

    def convert_row(self, row: Row) -> ChatExample:
        """Return `instruction`, `input`, `context`, `output` and `history` as a conversation."""
        require_string(row, "instruction")
        answer = make_message("assistant", require_string(row, "output"))
        return ChatExample([*prompt_messages(row, "instruction"), answer], label=label_of(row, "kto_tag", "label"))
