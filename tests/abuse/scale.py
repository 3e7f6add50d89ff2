"""How much of the suite runs.

`make abuse` sets BURNISH_ABUSE=long, which measures; `make test-all` sets BURNISH_ABUSE=full, which makes the same
attacks, each alone and on both databases, but shorter ones; `make test` runs the short form.
"""

from __future__ import annotations

import os

LONG = os.environ.get("BURNISH_ABUSE") == "long"
FULL = LONG or os.environ.get("BURNISH_ABUSE") == "full"
PATIENCE = 30.0
"""Seconds after which an answer that has not come counts as one that hangs."""
QUIET_SECONDS = 40.0 if FULL else 4.0
"""How long the quiet tenant is measured alone, before the first attack."""
ATTACK_SECONDS = 20.0 if LONG else 6.0 if FULL else 2.0
REST_SECONDS = 3.0 if LONG else 1.0 if FULL else 0.5
"""The pause between attacks."""
JOB_PAUSE_SECONDS = 0.5 if FULL else 5.0
"""The quiet tenant's pause between two jobs."""
TEST_SECONDS = 1200
"""What one test may take on a busy machine."""
