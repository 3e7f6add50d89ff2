"""The report's curves as inline SVG: text stays text, and the axes take the page's own colour."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from trainer.report.model import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Matplotlib knows no `currentColor`: this colour stands for it and is replaced in the finished SVG.
_INK = "#010203"
_TRAIN, _VALID, _BASE = "#8b93a7", "#2f6fed", "#d9822b"


def loss_plot(report: Report) -> str:
    """Return the loss of each step, of each evaluation, and the base's level, in nats a token."""
    steps = [step.step for step in report.steps]
    evaluations = [evaluation for evaluation in report.evaluations if evaluation.model == "tuned"]

    def draw(axes: Axes) -> None:
        _curves(
            axes,
            (steps, [step.train_loss for step in report.steps]),
            ([event.step for event in evaluations], [event.valid_loss for event in evaluations]),
            report.comparison.base_loss.value,
            report.measured_on,
        )

    return _svg(draw, "loss, nats a token")


def accuracy_plot(report: Report) -> str:
    """Return the share of tokens guessed right, by step and evaluation, with the base's level."""
    steps = [step.step for step in report.steps]
    evaluations = [evaluation for evaluation in report.evaluations if evaluation.model == "tuned"]

    def draw(axes: Axes) -> None:
        _curves(
            axes,
            (steps, [step.train_mean_token_accuracy for step in report.steps]),
            ([event.step for event in evaluations], [event.valid_mean_token_accuracy for event in evaluations]),
            report.comparison.base_accuracy.value,
            report.measured_on,
        )
        axes.set_ylim(0, 1.02)

    return _svg(draw, "token accuracy")


def _curves(
    axes: Any,
    train: tuple[Sequence[int], Sequence[float]],
    valid: tuple[Sequence[int], Sequence[float]],
    base: float,
    measured_on: str,
) -> None:
    axes.plot(*train, color=_TRAIN, linewidth=1.4, label="training, each step")
    if valid[0]:
        axes.plot(*valid, color=_VALID, linewidth=2, marker="o", markersize=5, label="validation")
    axes.axhline(base, color=_BASE, linewidth=1.4, linestyle="--", label=f"base model ({measured_on} rows)")


def _style(values: dict[str, Any]) -> AbstractContextManager[None]:
    import matplotlib as mpl

    return mpl.rc_context(values)  # pyright: ignore[reportUnknownMemberType, reportArgumentType]


def _svg(draw: Any, label: str) -> str:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    style = {"svg.fonttype": "none", "svg.hashsalt": "burnish", "font.size": 10, "font.family": "sans-serif"}
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    with _style({**style, **dict.fromkeys(inked, _INK)}):
        figure: Any = Figure(figsize=(5.6, 3.3), layout="constrained")
        axes: Any = figure.add_subplot()
        draw(axes)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#808080", alpha=0.25)
        axes.legend(frameon=False, fontsize=9)
        text = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
