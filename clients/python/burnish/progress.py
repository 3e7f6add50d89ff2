"""A job's progress for people: a live bar with loss, speed and time left, or plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text
from typing_extensions import Self

from burnish._text import printable
from burnish.schemas import JobEvent

_BLOCKS = "▁▂▃▄▅▆▇█"
_STYLES = {"warn": "yellow", "error": "red"}


class JobProgress:
    """Shows events given to it, as `on_event` of `jobs.wait`; a context manager.

    Without a terminal, messages are lines, and of the training steps about `lines` are shown.
    """

    def __init__(self, *, console: Console | None = None, lines: int = 20) -> None:
        self._console = console or Console(stderr=True)
        self._live = self._console.is_terminal
        self._lines = lines
        self._losses: list[float] = []
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[numbers]}", markup=False),
            TextColumn("{task.fields[curve]}", style="cyan", markup=False),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._progress.add_task("waiting", total=None, numbers="", curve="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: JobEvent) -> None:
        """Show one event."""
        data = event.data or {}
        if event.type == "metrics" and _number(data, "train_loss") is not None and "step" in data:
            self._step(data)
        elif event.type == "metrics" and (line := evaluation_line(data)):
            self._print(line, "green")
        else:
            self._print(printable(event.message), _STYLES.get(event.level, ""))

    def _step(self, data: dict[str, Any]) -> None:
        step, total = int(data["step"]), int(data.get("total_steps") or 0)
        self._losses.append(float(data["train_loss"]))
        numbers = step_line(data)
        if self._live:
            curve = sparkline(self._losses) if self._console.encoding.startswith("utf") else ""
            self._progress.update(
                self._task,
                description="training",
                completed=step,
                total=total or None,
                numbers=numbers,
                curve=curve,
            )
        elif step % max(1, total // self._lines) == 0 or step == total:
            self._print(numbers)

    def _print(self, line: str, style: str = "") -> None:
        # On the progress' console, so that a line lands above the bar.
        self._progress.console.print(Text(line, style=style), soft_wrap=True)


def step_line(data: dict[str, Any]) -> str:
    """Return a step's numbers: `step 3/60 · loss 2.118 · 171 tokens/s · 1:05 left`."""
    parts = [f"step {data['step']}" + (f"/{data['total_steps']}" if data.get("total_steps") else "")]
    loss, speed = _number(data, "train_loss"), _number(data, "tokens_per_second")
    left = _number(data, "seconds_left")
    if loss is not None:
        parts.append(f"loss {loss:.3f}")
    if speed is not None:
        parts.append(f"{speed:,.0f} tokens/s")
    if left is not None:
        parts.append(f"{duration(left)} left")
    return " · ".join(parts)


def evaluation_line(data: dict[str, Any]) -> str:
    """Return a validation's numbers in one line, empty where there are none; of a method's own, the first three."""
    for prefix in ("full_valid_", "valid_"):
        numbers = {name[len(prefix) :]: _number(data, name) for name in data if name.startswith(prefix)}
        shown = {name: value for name, value in numbers.items() if value is not None}
        if not shown:
            continue
        parts = [f"loss {shown.pop('loss'):.3f}"] if "loss" in shown else []
        accuracy = shown.pop("mean_token_accuracy", None)
        parts += [] if accuracy is None else [f"token accuracy {accuracy:.1%}"]
        parts += [f"{printable(name).replace('_', ' ')} {value:.3f}" for name, value in list(shown.items())[:3]]
        model = printable(str(data.get("model") or "model"))
        return f"step {data.get('step', 0)}: validation {', '.join(parts)} ({model})"
    return ""


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """Draw `values` as blocks, averaged into at most `width` columns; non-finite values are left out."""
    finite = [value for value in values if abs(value) < float("inf")]
    if not finite:
        return ""
    columns = min(width, len(finite))
    edges = [index * len(finite) // columns for index in range(columns + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    return "".join(_BLOCKS[round((mean - low) / span * 7) if span else 0] for mean in means)


def duration(seconds: float) -> str:
    """Return `1:05` or `2:01:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _number(data: dict[str, Any], name: str) -> float | None:
    value = data.get(name)
    return float(value) if isinstance(value, (int, float)) else None
