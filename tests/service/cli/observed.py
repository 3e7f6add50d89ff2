"""What these tests look at: the errors of commands, the client's file, the modes of a folder's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def is_one_sentence(text: str) -> bool:
    return text.startswith("burnish-server: ") and text.count("\n") == 1


def read_client_file(data: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((data / "client.json").read_text(encoding="utf-8"))
    return content


def too_wide(folder: Path) -> list[str]:
    """Return what of a folder others than its owner may enter, read or write."""
    paths = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    return [f"{path} {path.stat().st_mode:o}" for path in paths if path.stat().st_mode & 0o077]
