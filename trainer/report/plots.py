"""The report's curves as inline SVG: text stays text, and the axes take the page's own colour."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.contract.events import EvaluationEvent, StepEvent
from trainer.kit.plot_spec import PlotSpec
from trainer.report.model import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Matplotlib has no `currentColor`: this colour stands in for it and is replaced in the finished SVG.
_INK = "#010203"
_TRAIN, _VALID, _BASE = "#8b93a7", "#2f6fed", "#d9822b"


def all_plots(report: Report) -> list[str]:
    """Return the report's curves: loss, token accuracy if it was measured, and what the method asks for."""
    plots = [_over_steps(report, PlotSpec(title=_loss_label(report), y=("loss",)))]
    if any(step.train_mean_token_accuracy is not None for step in report.steps):
        plots.append(_over_steps(report, PlotSpec(title="token accuracy", y=("token_accuracy",))))
    for spec in report.plots:
        plots.append(_over_steps(report, spec) if spec.x == "step" else _over_metric(report, spec))
    return plots


def _loss_label(report: Report) -> str:
    unit = next((measure.unit for measure in report.comparison if measure.name == "loss"), "")
    return f"loss, {unit}" if unit else "loss"


def _step_value(step: StepEvent, name: str) -> float | None:
    if name == "loss":
        return step.train_loss
    return step.train_mean_token_accuracy if name == "token_accuracy" else step.metrics.get(name)


def _evaluation_value(event: EvaluationEvent, name: str) -> float | None:
    if name == "loss":
        return event.valid_loss
    return event.valid_mean_token_accuracy if name == "token_accuracy" else event.metrics.get(name)


def _over_steps(report: Report, spec: PlotSpec) -> str:
    def draw_steps(axes: Axes) -> None:
        for number, name in enumerate(spec.y):
            train = [(s.step, value) for s in report.steps if (value := _step_value(s, name)) is not None]
            valid = [
                (event.step, value)
                for event in report.evaluations
                if event.model == "tuned" and (value := _evaluation_value(event, name)) is not None
            ]
            base = next((measure.base.value for measure in report.comparison if measure.name == name), None)
            _draw_curves(axes, train, valid, base, _Words(name if len(spec.y) > 1 else "", report.measured_on, number))

    return _render_svg(draw_steps, spec.title)


def _over_metric(report: Report, spec: PlotSpec) -> str:
    def draw_metric(axes: Any) -> None:
        for name in spec.y:
            points = [(s.metrics[spec.x], s.metrics[name]) for s in report.steps if {spec.x, name} <= s.metrics.keys()]
            axes.plot(*_split_points(points), color=_VALID, linewidth=1, alpha=0.35)
            axes.scatter(*_split_points(points), color=_VALID, s=16, label=f"{name}, each step")
            for word, point in (("first", points[:1]), ("last", points[-1:])):
                for place in point:
                    axes.annotate(word, place, textcoords="offset points", xytext=(5, 5), fontsize=9, color=_INK)

    return _render_svg(draw_metric, spec.title, x_label=spec.x)


@dataclass(frozen=True)
class _Words:
    """What a curve is called: its name if a plot has several, the rows of the base's line, its place."""

    name: str
    rows: str
    number: int


def _split_points(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _draw_curves(
    axes: Any,
    train: Sequence[tuple[float, float]],
    valid: Sequence[tuple[float, float]],
    base: float | None,
    words: _Words,
) -> None:
    name = f"{words.name}, " if words.name else ""
    style = ("-", ":", "-.")[words.number % 3]
    if train:
        axes.plot(
            *_split_points(train), color=_TRAIN, linewidth=1.4, linestyle=style, label=f"{name}training, each step"
        )
    if valid:
        axes.plot(
            *_split_points(valid), color=_VALID, linewidth=2, linestyle=style, marker="o", label=f"{name}validation"
        )
    if base is not None:
        axes.axhline(base, color=_BASE, linewidth=1.4, linestyle="--", label=f"{name}at the start ({words.rows} rows)")


def _plot_style(values: dict[str, Any]) -> AbstractContextManager[None]:
    import matplotlib as mpl

    return mpl.rc_context(values)  # pyright: ignore[reportUnknownMemberType, reportArgumentType]


def _render_svg(draw: Any, label: str, x_label: str = "step") -> str:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    style = {"svg.fonttype": "none", "svg.hashsalt": "burnish", "font.size": 10, "font.family": "sans-serif"}
    ink_settings = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    with _plot_style({**style, **dict.fromkeys(ink_settings, _INK)}):
        figure: Any = Figure(figsize=(5.6, 3.3), layout="constrained")
        axes: Any = figure.add_subplot()
        draw(axes)
        axes.set_xlabel(x_label)
        axes.set_title(label, loc="left", fontsize=10)
        if x_label == "step":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#808080", alpha=0.25)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9)
        text = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
