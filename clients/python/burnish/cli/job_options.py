"""The options of an order, the same for `jobs create` and `jobs preview`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from burnish.cli.hyperparameters import hyperparameter_options

F = TypeVar("F", bound=Callable[..., Any])

_BUDGET = {
    "max_steps": (click.INT, "End after so many steps, with the model trained so far."),
    "max_tokens": (click.INT, "End before more tokens than these are trained on."),
    "max_gpu_minutes": (click.FLOAT, "End after so many minutes on a worker."),
}
_RESOURCES = {
    "gpus": (click.IntRange(0, 1), "1: only on a worker with a GPU; 0: on the CPU."),
    "gpu_memory_gb": (click.FLOAT, "The least memory of the worker's GPU, in GB."),
}


class Priority(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - not generic before click 8.4
    """A number, or low, normal or high."""

    name = "low|normal|high|number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word or the number; anything else is a usage error."""
        if value in ("low", "normal", "high") or isinstance(value, int):
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither low, normal, high nor a number from -100 to 100.", param, ctx)


def order_options(function: F) -> F:
    """Give a command all the options of an order."""
    options = [
        click.option(
            "--model", required=True, help="A base's name, an earlier outcome's (ft:…), or a job's id (ftjob-…)."
        ),
        click.option("--training-file", required=True, help="A path, which is uploaded, or a file's id."),
        click.option("--validation-file", help="Held-out rows: a path or a file's id."),
        click.option("--method", help="How to train (default supervised)."),
        click.option("--suffix", help="Becomes a part of the new model's name."),
        click.option("--seed", type=int, help="The same seed and data give the same adapter."),
        click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="A note on the job; may be repeated."),
        hyperparameter_options,
        click.option("--priority", type=Priority(), help="Which queued job starts first (default normal, which is 0)."),
        click.option("--timeout", type=int, help="Seconds of running after which the job fails."),
        *(click.option(_flag(name), type=kind, help=text) for name, (kind, text) in (_BUDGET | _RESOURCES).items()),
        click.option("--label", "labels", multiple=True, help="A label that the worker must have; may be repeated."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def pack_limits(options: dict[str, Any]) -> None:
    """Turn the options of budget and resources, in place, into those two arguments."""
    budget = _given(options, _BUDGET)
    resources = _given(options, _RESOURCES)
    if labels := options.pop("labels"):
        resources["labels"] = list(labels)
    options.update(budget=budget or None, resources=resources or None)


def _given(options: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    values = {name: options.pop(name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
