"""The options that become hyperparameters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

if TYPE_CHECKING:
    from burnish.job_arguments import Hyperparameters


F = TypeVar("F", bound=Callable[..., Any])


class AutoOr(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - not generic before click 8.4
    """A number, or the word `auto`, which leaves it to the trainer."""

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.name = f"{'integer' if kind is int else 'number'}|auto"
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number or `auto`; anything else is a usage error."""
        if value == "auto" or isinstance(value, (int, float)):
            return value
        try:
            return self._kind(value)
        except ValueError:
            self.fail(f"{value!r} is neither auto nor a number.", param, ctx)


_OPTIONS: dict[str, tuple[click.ParamType[Any], str]] = {
    "epochs": (AutoOr(int), "Passes over the training rows."),
    "batch-size": (AutoOr(int), "Rows an optimizer step sees."),
    "learning-rate-multiplier": (AutoOr(float), "Scales the method's default learning rate."),
    "warmup-ratio": (click.FLOAT, "Share of the steps in which the learning rate rises."),
    "gradient-accumulation-steps": (AutoOr(int), "Parts that a batch is computed in, to save memory."),
    "max-length": (AutoOr(int), "Tokens after which a row is cut."),
    "lr-scheduler": (click.Choice(["cosine", "linear", "constant"]), "How the learning rate falls."),
    "weight-decay": (click.FLOAT, "AdamW's weight decay."),
    "max-grad-norm": (click.FLOAT, "Gradients are clipped to this norm."),
    "eval-steps": (AutoOr(int), "Steps between validations."),
    "checkpoint-steps": (AutoOr(int), "Steps between checkpoints."),
    "dtype": (click.Choice(["auto", "float32", "bfloat16"]), "Precision of the computation."),
    "quantization": (click.Choice(["none", "4bit"]), "How the base is held in memory; 4bit needs a GPU."),
    "early-stopping-patience": (click.INT, "Validations without a better one after which the training ends."),
    "result": (click.Choice(["last", "best"]), "Whose weights come out: the last step's, or the best validation's."),
    "lora-rank": (click.INT, "Rank of the adapter's matrices."),
    "lora-alpha": (click.FLOAT, "The adapter's output is scaled by alpha / rank."),
    "lora-dropout": (click.FLOAT, "Dropout before the adapter."),
    "lora-target-modules": (click.STRING, "all-linear, or module names with commas between."),
}
_RENAMED = {"epochs": "n_epochs"}
_MOST_DEPTH = 32


def hyperparameter_options(function: F) -> F:
    """Give a command all the options."""
    for name, (kind, text) in reversed(_OPTIONS.items()):
        function = click.option(f"--{name}", type=kind, help=text)(function)
    more = click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="Any other hyperparameter of the method, the value in JSON or plain text, such as beta=0.1 or "
        "reward.model=ftjob-…; may be repeated.",
    )
    return more(function)


def _put_setting(settings: dict[str, Any], setting: str) -> None:
    """Add `name=value`, the dots of the name as levels. Raises a usage error."""
    name, sign, text = setting.partition("=")
    *levels, last = name.split(".")
    if not (sign and all(levels) and last):
        raise click.BadParameter(f"{_shorten_name(setting)} must be NAME=VALUE.", param_hint="--set")
    if len(levels) >= _MOST_DEPTH:
        raise click.BadParameter(_too_deep(name), param_hint="--set")
    place = settings
    for level in levels:
        below = place.setdefault(level, {})
        if not isinstance(below, dict):
            raise click.BadParameter(f"{level} in {name} has a value of its own.", param_hint="--set")
        place = cast("dict[str, Any]", below)
    place[last] = _parse_setting_value(name, text)


def _parse_setting_value(name: str, text: str) -> Any:
    """Return JSON as its value, anything else as the text that it is. Raises a usage error."""

    def require_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            raise click.BadParameter(f"{name[:64]} has the key {twice[:64]} twice in one object.", param_hint="--set")
        return mapping

    try:
        value = json.loads(text, object_pairs_hook=require_unique_keys, parse_constant=_refuse_constant)
    except RecursionError:
        raise click.BadParameter(_too_deep(name), param_hint="--set") from None
    except ValueError:
        return text
    if _nesting_depth(value) > _MOST_DEPTH:
        raise click.BadParameter(_too_deep(name), param_hint="--set")
    return value


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _nesting_depth(value: object) -> int:
    depth, level = 0, [*_child_values(value)]
    while level:
        depth += 1
        level = [child for item in level for child in _child_values(item)]
    return depth


def _child_values(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()


def _too_deep(name: str) -> str:
    return f"{_shorten_name(name)} is nested too deeply: {_MOST_DEPTH} levels are allowed."


def _shorten_name(text: str) -> str:
    return repr(text if len(text) <= 64 else f"{text[:64]}…")


def pack_hyperparameters(options: dict[str, Any]) -> Hyperparameters | None:
    """Take the hyperparameters out of a command's options; None if none was given."""
    hyperparameters: dict[str, Any] = {}
    lora: dict[str, Any] = {}
    for option in _OPTIONS:
        name = option.replace("-", "_")
        value = options.pop(name)
        if value is None:
            continue
        if name == "lora_target_modules" and value != "all-linear":
            value = [module.strip() for module in value.split(",")]
        place = lora if name.startswith("lora_") else hyperparameters
        place[_RENAMED.get(name, name.removeprefix("lora_"))] = value
    if lora:
        hyperparameters["lora"] = lora
    for setting in options.pop("settings"):
        _put_setting(hyperparameters, setting)
    return cast("Hyperparameters", hyperparameters) if hyperparameters else None
