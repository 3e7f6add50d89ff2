"""Flags that keep a turn out of the loss, in the spellings of other trainers: all of them become `weight`."""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.errors import NotConvertibleError
from burnish.datasets.wording import quote_value

WEIGHT_KEYS = ("weight", "loss_weight", "train", "training", "trainable", "loss")


def weight_of(turn: Row, prefix: str) -> int | None:
    """Return what a turn's flags say, 0 or 1; None if it has none. `prefix` begins the place, such as `messages[2].`.

    Raises NotConvertibleError for anything but 0, 1, true and false, and for flags that contradict each other.
    """
    weights: dict[str, int] = {}
    for key in WEIGHT_KEYS:
        value = turn.get(key)
        if value is None:
            continue
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            raise NotConvertibleError(
                f"{prefix}{key}: is {quote_value(value)}; a turn is learned (1, true) or not (0, false)"
            )
        weights[key] = int(value)
    if len(set(weights.values())) > 1:
        raise NotConvertibleError(f"{prefix}{next(iter(weights))}: contradicts {', '.join(list(weights)[1:])}")
    return next(iter(weights.values()), None)
