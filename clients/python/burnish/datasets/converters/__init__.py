"""Converters from the formats that datasets are published in. A new one is a module and a line here."""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.converters.alpaca import AlpacaConverter
from burnish.datasets.converters.base import Converter
from burnish.datasets.converters.chat import ChatConverter
from burnish.datasets.converters.completions import CompletionsConverter
from burnish.datasets.converters.hh_rlhf import HumanAssistantConverter
from burnish.datasets.converters.pairs import PairsConverter
from burnish.datasets.converters.ratings import RatingsConverter
from burnish.datasets.converters.sharegpt import ShareGPTConverter, ShareGPTPairsConverter
from burnish.datasets.converters.text import PlainTextConverter

__all__ = ["CONVERTERS", "PLAIN_TEXT", "Converter", "detect_converter"]

PLAIN_TEXT = "text"
"""The converter that reads plain text files, too."""

CONVERTERS: dict[str, Converter] = {
    "sharegpt-pairs": ShareGPTPairsConverter(),
    "sharegpt": ShareGPTConverter(),
    "hh-rlhf": HumanAssistantConverter(),
    "pairs": PairsConverter(),
    "ratings": RatingsConverter(),
    "alpaca": AlpacaConverter(),
    "chat": ChatConverter(),
    "completions": CompletionsConverter(),
    PLAIN_TEXT: PlainTextConverter(),
}
"""Every converter by its name, in the order in which they are asked whether a row is theirs."""


def detect_converter(row: Row) -> str | None:
    """Return the name of the converter for a row like this; None if there is none."""
    return next((name for name, converter in CONVERTERS.items() if converter.matches_row(row)), None)
