"""A request to stop: SIGTERM raises a flag, and the run looks at it where it can end cleanly."""

from __future__ import annotations

from types import FrameType


class StopFlag:
    """Whether the run was asked to stop. Signal handlers may only raise the flag: no I/O in them."""

    def __init__(self) -> None:
        self.raised = False

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.raised = True

    def __call__(self) -> bool:
        """Return whether the flag is raised."""
        return self.raised
