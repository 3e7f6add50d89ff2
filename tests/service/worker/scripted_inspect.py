"""Stands in for the program that looks at a base: it finds nothing wrong, and makes no card.

Usage: scripted_inspect.py SOURCE_FILE OUTPUT_FILE PLACE
"""

from __future__ import annotations

import sys
from pathlib import Path

Path(sys.argv[2]).write_text("{}")
