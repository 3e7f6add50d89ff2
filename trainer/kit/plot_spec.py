"""A curve of a method for its report."""

from __future__ import annotations

from trainer.frozen import Frozen


class PlotSpec(Frozen):
    """A curve of the report: metrics `y` of steps and evaluations over the steps, or over another metric `x`."""

    title: str
    y: tuple[str, ...]
    x: str = "step"
