"""How forms of answers are described: marks around thoughts and calls, or messages with a header each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from trainer.engine.answer_format.parts import OfferedTools, ReadCalls


@dataclass(frozen=True)
class ThoughtMarks:
    """What stands in front of thoughts and behind them."""

    opening: str
    closing: str
    stripped_by: str = ""
    """What a template looks for that strips thoughts, if that is not the whole opening mark."""


@dataclass(frozen=True)
class CallMarks:
    """What stands in front of a call (or several) and behind it; the end of the answer closes it too."""

    opening: str
    closings: tuple[str, ...]
    read_calls: ReadCalls
    at_start: bool = False
    """Whether the call has no mark: `opening` is then how it begins, at the answer's beginning alone."""


@dataclass(frozen=True)
class CallForm:
    """A form of calls."""

    name: str
    calls: tuple[CallMarks, ...]
    inner_marks: tuple[str, ...] = ()
    """Tokens between the marks that the reader looks for."""
    wrappers: tuple[str, ...] = ()
    """Marks around what is said, which are left out."""

    @property
    def marks(self) -> tuple[str, ...]:
        """All marks."""
        outer = [mark for one in self.calls for mark in (one.opening, *one.closings)]
        return (*outer, *self.inner_marks, *self.wrappers)


@dataclass(frozen=True)
class MessageHeader:
    """What a message's header says of its body. `tool` names the function that a `tool_call` calls."""

    kind: Literal["content", "reasoning", "tool_call"]
    tool: str = ""


@dataclass(frozen=True)
class MessageForm:
    """A form of answers that are messages: `opening`, header, `body`, text, one of `closings`.

    `header_starts` are the beginnings that a header may have behind the role; text without one is the answer itself.
    """

    name: str
    opening: str
    role: str
    body: str
    closings: tuple[str, ...]
    header_starts: tuple[str, ...]
    read_header: Callable[[str], MessageHeader | None]
    read_arguments: Callable[[str, str, OfferedTools], str | None]
    """Returns the arguments of a call, by the function's name and the message's body; None if they are malformed."""
    inner_marks: tuple[str, ...] = ()

    @property
    def marks(self) -> tuple[str, ...]:
        """All marks."""
        return (self.opening, self.body, *self.closings, *self.inner_marks)
