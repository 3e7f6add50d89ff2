"""`python -m trainer.programs.chat`: answer conversations, one JSON object a line.

Orders come on stdin, answers go to stdout. Orders are taken one after the other; a `cancel` acts at once. The program
ends when stdin does. What libraries print goes to stderr.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import traceback
from collections.abc import Iterable
from functools import partial
from typing import TextIO

from trainer.contract.chat import ORDER, Ask, Refused
from trainer.contract.result import ExitCode
from trainer.frozen import Frozen
from trainer.kit.errors import TrainerError, as_trainer_error
from trainer.programs.shell import run_program


class Orders:
    """Reads orders in a thread of its own, so that a cancel is seen while an answer is drawn."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._asks: queue.SimpleQueue[Ask | None] = queue.SimpleQueue()
        self._waiting: set[str] = set()
        self._cancelled: set[str] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._read, args=(lines,), name="orders", daemon=True).start()

    def next(self) -> Ask | None:
        """Wait for the next conversation; None at the end."""
        return self._asks.get()

    def cancelled(self, ask_id: str) -> bool:
        """Whether an answer is not wanted any more."""
        return ask_id in self._cancelled

    def finished(self, ask_id: str) -> None:
        """Forget an order."""
        with self._lock:
            self._waiting.discard(ask_id)
            self._cancelled.discard(ask_id)

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            order = ORDER.validate_json(line)
            with self._lock:
                if isinstance(order, Ask):
                    self._waiting.add(order.id)
                    self._asks.put(order)
                elif order.id in self._waiting:
                    self._cancelled.add(order.id)
        self._asks.put(None)


def main() -> int:
    """Answer until stdin ends."""
    output = _own_stdout()
    return run_program(partial(_answer_all, output))


def _answer_all(output: TextIO) -> ExitCode:
    from trainer.chat.answers import answer, not_finite
    from trainer.chat.models import Models

    models = Models()
    orders = Orders(sys.stdin)
    while (ask := orders.next()) is not None:
        try:
            for event in answer(models, ask, partial(orders.cancelled, ask.id)):
                _tell(output, event)
        except FloatingPointError as error:
            _tell(output, _refused(ask.id, not_finite(error)))
        except Exception as error:  # noqa: BLE001 - one conversation's fault must not end the others'
            if not isinstance(error, TrainerError):
                traceback.print_exc()
            _tell(output, _refused(ask.id, as_trainer_error(error)))
        orders.finished(ask.id)
    return ExitCode.DONE


def _own_stdout() -> TextIO:
    """Return stdout for the protocol alone; whoever prints to stdout from now on writes to stderr."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    return own


def _tell(output: TextIO, event: Frozen) -> None:
    print(event.model_dump_json(), file=output, flush=True)


def _refused(ask_id: str, error: TrainerError) -> Refused:
    return Refused(
        id=ask_id,
        code=error.code,
        message=error.message,
        param=error.param,
        fault=error.exit_code != ExitCode.BAD_INPUT,
    )


if __name__ == "__main__":
    sys.exit(main())
