"""Fixtures that several packages' tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# Started in the background, a shell makes us ignore Ctrl-C, and our children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny chat model's folder; read-only by agreement."""
    from tests.fixtures.tiny_model import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
