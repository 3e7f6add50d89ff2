"""The options of an order, the same for `jobs create` and `jobs preview`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click

from burnish.cli import hyperparameters
from burnish.cli.completion import complete_methods, complete_models

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


class Age(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - not generic before click 8.4
    """A duration in seconds, also written as 90s, 30m, 12h or 7d."""

    name = "age"
    _SECONDS: ClassVar = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the seconds; anything else is a usage error."""
        if isinstance(value, int):
            return value
        number, unit = (value[:-1], value[-1]) if value[-1:] in self._SECONDS else (value, "s")
        if not (number.isascii() and number.isdigit()):
            self.fail(f"{value!r} is not a valid duration; write seconds, or 90s, 30m, 12h, 7d.", param, ctx)
        return int(number) * self._SECONDS[unit]


def order_options(function: F) -> F:
    """Give a command all the options of an order."""
    options = [
        click.option(
            "-f",
            "--file",
            "job_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True),
            help="A job in YAML: names and values as in the API. Options override it.",
        ),
        click.option(
            "--model",
            shell_complete=complete_models,
            help="A base, a fine-tuned model (ft:…), or a job's id (ftjob-…).",
        ),
        click.option("--training-file", help="A path, which is uploaded, or a file's id."),
        click.option("--validation-file", help="Held-out rows: a path or a file's id."),
        click.option("--method", shell_complete=complete_methods, help="How to train (default supervised)."),
        click.option("--suffix", help="Becomes a part of the new model's name."),
        click.option("--seed", type=int, help="The same seed and data give the same adapter."),
        click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="A note on the job; may be repeated."),
        hyperparameters.hyperparameter_options,
        click.option(
            "--priority",
            type=Priority(),
            help="Which of the project's queued jobs starts first (default normal, which is 0).",
        ),
        click.option("--timeout", type=Age(), help="How long the job may run before it fails: 3600, or 12h."),
        *(
            click.option(_option_flag(name), type=kind, help=text)
            for name, (kind, text) in (_BUDGET | _RESOURCES).items()
        ),
        click.option("--label", "labels", multiple=True, help="A label that the worker must have; may be repeated."),
        click.option(
            "--keep-checkpoints",
            type=click.IntRange(min=1),
            help="Keep this many of the newest checkpoints, and the best.",
        ),
        click.option("--expire-checkpoints", type=Age(), help="Delete each checkpoint at this age, such as 7d."),
        click.option("--expire-artifacts", type=Age(), help="Delete the results at this age."),
        click.option("--wandb-project", help="A project of Weights & Biases that the metrics go to."),
        click.option("--idempotency-key", help="A second call with the same key creates no second job."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def pack_job_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return what the options of an order say, as arguments of `jobs.create`; what was not given is left out."""
    options["hyperparameters"] = hyperparameters.pack_hyperparameters(options)
    options["metadata"] = dict(_parse_metadata_pair(item) for item in options["metadata"])
    options["budget"] = _take_options(options, _BUDGET)
    options["resources"] = _take_options(options, _RESOURCES) | _pack_labels(options.pop("labels"))
    ages = {name: options.pop(f"expire_{name}") for name in ("checkpoints", "artifacts")}
    options["expires_after"] = {
        name: {"anchor": "created_at", "seconds": seconds} for name, seconds in ages.items() if seconds is not None
    }
    if project := options.pop("wandb_project"):
        options["integrations"] = [{"type": "wandb", "wandb": {"project": project}}]
    return {name: value for name, value in options.items() if value not in (None, {})}


def _pack_labels(labels: tuple[str, ...]) -> dict[str, Any]:
    return {"labels": list(labels)} if labels else {}


def _parse_metadata_pair(item: str) -> tuple[str, str]:
    name, sign, value = item.partition("=")
    if not (name and sign):
        raise click.BadParameter(f"{item!r} must be NAME=VALUE.", param_hint="--metadata")
    return name, value


def _take_options(options: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    values = {name: options.pop(name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _option_flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
