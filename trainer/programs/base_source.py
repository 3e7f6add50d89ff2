"""The file that names a base model's source, as the programs on bases read it."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import ValidationError

from trainer.contract.base_model import SOURCE, FolderBaseSource, GgufBaseSource, HubBaseSource


def read_source(path: Path) -> GgufBaseSource | FolderBaseSource | HubBaseSource | None:
    """Return the source; None, after a sentence on stderr, if the file does not describe one."""
    try:
        return SOURCE.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        print(f"{path} does not describe a base model's source: {error}", file=sys.stderr)
        return None
