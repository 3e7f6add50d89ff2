"""The commands' client. Whatever is slow to load is loaded here, not while a command's help is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from burnish.client import Burnish


def connect_client() -> Burnish:
    """Return a client of the server that the settings name. Raises ConfigurationError."""
    from burnish.client import Burnish

    return Burnish()
