"""A row's turns in as few sequences as its template allows: each answer behind what generation would see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from trainer.engine.chat_template.turns import TurnText


@dataclass
class TextSequence:
    """A rendering with the spans of it that are trained, by the numbers of their messages.

    `last` is the number of the last message that belongs to it; what follows that is context of nothing.
    """

    text: str
    last: int
    trained: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])

    def trained_texts(self) -> dict[int, str]:
        """Return what is trained, by message."""
        return {number: self.text[start:end] for number, (start, end) in self.trained.items()}

    def segments(self) -> list[tuple[str, bool]]:
        """Return the text in pieces, and of each whether it is trained."""
        pieces: list[tuple[str, bool]] = []
        place = 0
        for start, end in sorted(self.trained.values()):
            pieces += [(self.text[place:start], False), (self.text[start:end], True)]
            place = end
        return [*pieces, (self.text[place:], False)]


def join_turns(turns: Sequence[TurnText], whole: str | None, last: int) -> list[TextSequence]:
    """Return the sequences that hold the turns, in the turns' order.

    A turn shares a sequence if that begins with its prompt and answer, character by character. `whole` is the rendering
    of all messages, None if there is none; `last` is the number of the last one.
    """
    sequences: list[TextSequence] = []
    # From the newest turn, which has the most of the others in front.
    for turn in reversed(turns):
        text = turn.prompt + turn.answer
        sequence = next((sequence for sequence in sequences if sequence.text.startswith(text)), None)
        if sequence is None:
            sequence = TextSequence(_extend_turn(turn, text, whole, last, first=not sequences), turn.number)
            sequences.append(sequence)
        sequence.trained[turn.number] = (len(turn.prompt) + turn.learn_from, len(text))
    return sequences[::-1]


def _extend_turn(turn: TurnText, text: str, whole: str | None, last: int, *, first: bool) -> str:
    if turn.number == last:
        # White space behind the end of a turn is the template's; an opening of the next turn is not this turn's.
        return text + (turn.rest if turn.rest.isspace() else "")
    return whole if first and whole is not None and whole.startswith(text) else text
