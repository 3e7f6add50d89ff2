"""The version of the server distribution."""

from __future__ import annotations

from importlib.metadata import version

VERSION = version("burnish-server")
