"""A job's progress for people: a live bar with curves of the losses, or plain lines without a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text
from typing_extensions import Self

from burnish._text import printable_text
from burnish.schemas import JobEvent

_BLOCKS = "▁▂▃▄▅▆▇█"
_STYLES = {"warn": "yellow", "error": "red"}


class JobProgress:
    """Shows events given to it, as `on_event` of `jobs.wait`; a context manager.

    On a terminal, a bar with the curves of the loss and the validation loss below it. Without one, messages are
    lines, and of the training steps about `lines` are shown.
    """

    def __init__(self, *, console: Console | None = None, lines: int = 20) -> None:
        self._console = console or Console(stderr=True)
        self._live = self._console.is_terminal
        self._lines = lines
        self._curves = {"loss": Curve(), "validation loss": Curve()}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[numbers]}", markup=False),
            console=self._console,
        )
        self._task = self._progress.add_task("waiting", total=None, numbers="")
        self._display = Live(get_renderable=self._render_display, console=self._console, refresh_per_second=8)

    def __enter__(self) -> Self:
        if self._live:
            self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._display.stop()

    def __call__(self, event: JobEvent) -> None:
        """Update the display with the next event of the job."""
        data = event.data or {}
        if event.type == "metrics" and _number_field(data, "train_loss") is not None and "step" in data:
            self._show_step(data)
        elif event.type == "metrics" and (line := evaluation_line(data)):
            self._record_evaluation(data)
            self._print_line(line, "green")
        else:
            self._print_line(printable_text(event.message), _STYLES.get(event.level, ""))

    def _show_step(self, data: dict[str, Any]) -> None:
        step, total = int(data["step"]), int(data.get("total_steps") or 0)
        self._curves["loss"].add_value(step, float(data["train_loss"]))
        numbers = step_line(data)
        if self._live:
            self._progress.update(
                self._task, description="training", completed=step, total=total or None, numbers=numbers
            )
        elif step % max(1, total // self._lines) == 0 or step == total:
            self._print_line(numbers)

    def _record_evaluation(self, data: dict[str, Any]) -> None:
        loss = (
            _number_field(data, "valid_loss")
            if data.get("full_valid_loss") is None
            else _number_field(data, "full_valid_loss")
        )
        if loss is not None and data.get("model") != "base":
            self._curves["validation loss"].add_value(int(data.get("step") or 0), loss)

    def _render_display(self) -> Group:
        drawn_curves = [(name, curve) for name, curve in self._curves.items() if curve.values]
        if not drawn_curves:
            return Group(self._progress)
        table = Table.grid(padding=(0, 1))
        width = min(60, max(10, self._console.width - 50))
        blocks = self._console.encoding.startswith("utf")
        for name, curve in drawn_curves:
            sparkline = draw_sparkline(curve.values, width) if blocks else ""
            table.add_row(Text(f"  {name}"), Text(sparkline, style="cyan"), Text(str(curve)))
        return Group(self._progress, table)

    def _print_line(self, line: str, style: str = "") -> None:
        # On the display's console, so that a line lands above it.
        self._console.print(Text(line, style=style), soft_wrap=True)


class Curve:
    """A measure over the steps; as text, its last value and its lowest."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self._steps: list[int] = []

    def add_value(self, step: int, value: float) -> None:
        """Add a step's value; a step that is repeated after a restart counts once."""
        while self._steps and self._steps[-1] >= step:
            self._steps.pop()
            self.values.pop()
        self._steps.append(step)
        self.values.append(value)

    def __str__(self) -> str:
        finite = [(value, step) for value, step in zip(self.values, self._steps, strict=True) if isfinite(value)]
        lowest, step = min(finite, default=(None, 0))
        return f"{self.values[-1]:.3f}" + ("" if lowest is None else f", lowest {lowest:.3f} at step {step}")


def step_line(data: dict[str, Any]) -> str:
    """Return a step's numbers: `step 3/60 · loss 2.118 · 171 tokens/s · 1:05 left`."""
    parts = [f"step {data['step']}" + (f"/{data['total_steps']}" if data.get("total_steps") else "")]
    loss, speed = _number_field(data, "train_loss"), _number_field(data, "tokens_per_second")
    seconds_left = _number_field(data, "seconds_left")
    if loss is not None:
        parts.append(f"loss {loss:.3f}")
    if speed is not None:
        parts.append(f"{speed:,.0f} tokens/s")
    if seconds_left is not None:
        parts.append(f"{format_duration(seconds_left)} left")
    return " · ".join(parts)


def evaluation_line(data: dict[str, Any]) -> str:
    """Return a validation's numbers in one line, empty if there are none; of a method's own, the first three."""
    for prefix in ("full_valid_", "valid_"):
        numbers = {name[len(prefix) :]: _number_field(data, name) for name in data if name.startswith(prefix)}
        present_numbers = {name: value for name, value in numbers.items() if value is not None}
        if not present_numbers:
            continue
        parts = [f"loss {present_numbers.pop('loss'):.3f}"] if "loss" in present_numbers else []
        accuracy = present_numbers.pop("mean_token_accuracy", None)
        parts += [] if accuracy is None else [f"token accuracy {accuracy:.1%}"]
        parts += [
            f"{printable_text(name).replace('_', ' ')} {value:.3f}" for name, value in list(present_numbers.items())[:3]
        ]
        model = printable_text(str(data.get("model") or "model"))
        return f"step {data.get('step', 0)}: validation {', '.join(parts)} ({model})"
    return ""


def draw_sparkline(values: Sequence[float], width: int = 24) -> str:
    """Draw `values` as blocks, averaged into at most `width` columns; non-finite values are left out."""
    finite = [value for value in values if isfinite(value)]
    if not finite:
        return ""
    columns = min(width, len(finite))
    edges = [index * len(finite) // columns for index in range(columns + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    return "".join(_BLOCKS[round((mean - low) / span * 7) if span else 0] for mean in means)


def format_duration(seconds: float) -> str:
    """Return `1:05` or `2:01:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _number_field(data: dict[str, Any], name: str) -> float | None:
    value = data.get(name)
    return float(value) if isinstance(value, (int, float)) else None
