"""Moments at which a trainer is killed: named by the product's own functions, so that no test has to wait for one.

`python -m tests.trainer.killing.moments MOMENT WORKDIR` is `python -m trainer WORKDIR`, with SIGKILL at that moment.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.__main__ import main as train

FORWARD = "forward"
CLOCK = "clock"
STRUCK_NAME = "struck"


@dataclass(frozen=True)
class Moment:
    """The `call`-th call of `at` within the `nth` call of `within`; functions are `module:name` or `module:Class.name`.

    `at` may be FORWARD: a forward pass of the model; or CLOCK: `seconds` after the start.
    """

    at: str
    call: int = 1
    within: str | None = None
    nth: int = 1
    seconds: float = 0.0

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Moment:
        return cls(**json.loads(text))


def main(arguments: list[str]) -> int:
    """Run the trainer in a folder; the moment may be empty: then nothing happens to it."""
    moment, workdir = arguments
    if moment:
        _Trap(Moment.of(moment), Path(workdir).parent / STRUCK_NAME).set()
    return train([workdir])


class _Trap:
    def __init__(self, moment: Moment, struck: Path) -> None:
        self._moment = moment
        self._struck = struck
        self._within = 0
        self._inside = moment.within is None
        self._calls = 0

    def set(self) -> None:
        if self._moment.within is not None:
            _wrap(self._moment.within, self._around)
        if self._moment.at == FORWARD:
            self._watch_forwards()
        elif self._moment.at == CLOCK:
            threading.Thread(target=self._strike_later, daemon=True).start()
        else:
            _wrap(self._moment.at, self._strike_before)

    def _watch_forwards(self) -> None:
        from torch.nn.modules.module import register_module_forward_pre_hook
        from transformers import PreTrainedModel

        def look(module: Any, _inputs: Any) -> None:
            if isinstance(module, PreTrainedModel):
                self._look()

        register_module_forward_pre_hook(look)

    def _strike_later(self) -> None:
        time.sleep(self._moment.seconds)
        self._look()

    def _around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._within += 1
            self._inside = self._within == self._moment.nth
            try:
                return function(*args, **kwargs)
            finally:
                self._inside = False

        return wrapped

    def _strike_before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._look()
            return function(*args, **kwargs)

        return wrapped

    def _look(self) -> None:
        if not self._inside:
            return
        self._calls += 1
        if self._calls == self._moment.call:
            self._struck.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def _wrap(place: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    setattr(owner, name, wrapper(getattr(owner, name)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
