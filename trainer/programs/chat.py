"""`python -m trainer.programs.chat`: answer conversations, one JSON object a line.

Orders come on stdin, answers go to stdout. They are taken one after the other; a `cancel` and a `pause` act at once. A
conversation that has paused keeps what it has read and drawn until it is resumed or cancelled. The program ends when
stdin does. What libraries print goes to stderr.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import traceback
from collections.abc import Generator, Iterable
from functools import partial
from typing import TYPE_CHECKING, TextIO

from trainer.contract.chat import ORDER, AnswerRefused, Ask, Cancel, Pause, Paused, Resume
from trainer.contract.result import ExitCode
from trainer.frozen import Frozen
from trainer.kit.errors import TrainerError, as_trainer_error
from trainer.programs.shell import run_program

if TYPE_CHECKING:
    from trainer.chat.answers import Event


class Orders:
    """Reads orders in a thread of its own, so that a cancel or a pause is seen while an answer is drawn."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._orders: queue.SimpleQueue[Ask | Resume | Cancel | None] = queue.SimpleQueue()
        self._waiting: set[str] = set()
        self._cancelled: set[str] = set()
        self._pausing: set[str] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._read_orders, args=(lines,), name="orders", daemon=True).start()

    def next_order(self) -> Ask | Resume | Cancel | None:
        """Wait for the next order; None at the end. A cancel comes here too, for a conversation that has paused."""
        return self._orders.get()

    def is_cancelled(self, ask_id: str) -> bool:
        """Whether an answer is not wanted any more."""
        return ask_id in self._cancelled

    def is_pausing(self, ask_id: str) -> bool:
        """Whether a conversation is to pause."""
        return ask_id in self._pausing

    def note_pause(self, ask_id: str) -> None:
        """Record that a conversation has paused."""
        with self._lock:
            self._pausing.discard(ask_id)

    def forget_order(self, ask_id: str) -> None:
        with self._lock:
            self._waiting.discard(ask_id)
            self._cancelled.discard(ask_id)
            self._pausing.discard(ask_id)

    def _read_orders(self, lines: Iterable[str]) -> None:
        for line in lines:
            order = ORDER.validate_json(line)
            with self._lock:
                if isinstance(order, Ask):
                    self._waiting.add(order.id)
                elif isinstance(order, Cancel) and order.id in self._waiting:
                    self._cancelled.add(order.id)
                elif isinstance(order, Pause) and order.id in self._waiting:
                    self._pausing.add(order.id)
            if not isinstance(order, Pause):
                self._orders.put(order)
        self._orders.put(None)


class Conversations:
    """Continues one conversation until it pauses or ends; those that have paused are kept."""

    def __init__(self, orders: Orders, output: TextIO) -> None:
        self._orders = orders
        self._output = output
        self._aside: dict[str, Generator[Event]] = {}

    def continue_conversation(self, ask_id: str, events: Generator[Event]) -> None:
        """Write a conversation's events. Errors are written too: one conversation's failure must not end the others."""
        from trainer.chat.answers import make_broken_model_error

        try:
            for event in events:
                if isinstance(event, Paused):  # before it is written: the next order may resume it
                    self._orders.note_pause(ask_id)
                    self._aside[ask_id] = events
                _write_event(self._output, event)
                if isinstance(event, Paused):
                    return
        except FloatingPointError as error:
            _write_event(self._output, _make_refusal(ask_id, make_broken_model_error(error)))
        except Exception as error:  # noqa: BLE001 - see above
            if not isinstance(error, TrainerError):
                traceback.print_exc()
            _write_event(self._output, _make_refusal(ask_id, as_trainer_error(error)))
        self._orders.forget_order(ask_id)

    def resume_paused(self, ask_id: str) -> None:
        """Resume a conversation that has paused; with any other there is nothing to do."""
        events = self._aside.pop(ask_id, None)
        if events is not None:
            self.continue_conversation(ask_id, events)

    def drop_paused(self, ask_id: str) -> None:
        """Drop a conversation that has paused, with the memory that it keeps."""
        events = self._aside.pop(ask_id, None)
        if events is not None:
            events.close()
            self._orders.forget_order(ask_id)


def main() -> int:
    """Answer until stdin ends."""
    output = _own_stdout()
    return run_program(partial(_answer_all, output))


def _answer_all(output: TextIO) -> ExitCode:
    from trainer.chat.answers import answer_conversation
    from trainer.chat.models import BaseModelCache

    models = BaseModelCache()
    orders = Orders(sys.stdin)
    conversations = Conversations(orders, output)
    while (order := orders.next_order()) is not None:
        match order:
            case Ask(id=ask_id):
                events = answer_conversation(
                    models, order, partial(orders.is_cancelled, ask_id), partial(orders.is_pausing, ask_id)
                )
                conversations.continue_conversation(ask_id, events)
            case Resume(id=ask_id):
                conversations.resume_paused(ask_id)
            case Cancel(id=ask_id):
                conversations.drop_paused(ask_id)
    return ExitCode.DONE


def _own_stdout() -> TextIO:
    """Return stdout for the protocol alone; whoever prints to stdout from now on writes to stderr."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    return own


def _write_event(output: TextIO, event: Frozen) -> None:
    print(event.model_dump_json(), file=output, flush=True)


def _make_refusal(ask_id: str, error: TrainerError) -> AnswerRefused:
    return AnswerRefused(
        id=ask_id,
        code=error.code,
        message=error.message,
        param=error.param,
        fault=error.exit_code != ExitCode.BAD_INPUT,
    )


if __name__ == "__main__":
    sys.exit(main())
