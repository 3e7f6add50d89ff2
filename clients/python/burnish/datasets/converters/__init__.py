"""Converters from the formats that datasets are published in. A new one is a module and a line here."""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.converters.alpaca import Alpaca
from burnish.datasets.converters.base import Converter
from burnish.datasets.converters.chat import Chat
from burnish.datasets.converters.completions import Completions
from burnish.datasets.converters.hh_rlhf import HumanAssistant
from burnish.datasets.converters.pairs import Pairs
from burnish.datasets.converters.ratings import Ratings
from burnish.datasets.converters.sharegpt import ShareGPT, ShareGPTPairs
from burnish.datasets.converters.text import PlainText

__all__ = ["CONVERTERS", "PLAIN_TEXT", "Converter", "detect"]

PLAIN_TEXT = "text"
"""The converter that reads plain text files, too."""

CONVERTERS: dict[str, Converter] = {
    "sharegpt-pairs": ShareGPTPairs(),
    "sharegpt": ShareGPT(),
    "hh-rlhf": HumanAssistant(),
    "pairs": Pairs(),
    "ratings": Ratings(),
    "alpaca": Alpaca(),
    "chat": Chat(),
    "completions": Completions(),
    PLAIN_TEXT: PlainText(),
}
"""Every converter by its name, in the order in which they are asked whether a row is theirs."""


def detect(row: Row) -> str | None:
    """Return the name of the converter that knows a row like this; None if none does."""
    return next((name for name, converter in CONVERTERS.items() if converter.matches(row)), None)
