"""Prepares a base by copying its folder: `scripted_prepare.py SOURCE_JSON DEST`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

if __name__ == "__main__":
    source = json.loads(Path(sys.argv[1]).read_text())
    if source["path"].endswith("broken"):
        sys.exit("The weights cannot be read.")
    shutil.copytree(source["path"], sys.argv[2])
