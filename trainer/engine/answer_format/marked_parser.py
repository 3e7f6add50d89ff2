"""Answers whose thoughts and calls stand between marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from trainer.engine.answer_format.grammar import CallForm, CallMarks, ThoughtMarks
from trainer.engine.answer_format.parts import AnswerPart, CallText, OfferedTools, overlap_length
from trainer.engine.answer_format.token_marks import TokenMarks

_MOST_CLOSINGS = 16
"""At so many closing marks a call is tried: arguments may have the mark in them, text may have it without end."""


class MarkedParser:
    """An `AnswerParser`. What is malformed, or calls a function that was not offered, stays text, marks included.

    Line feeds beside thoughts and calls belong to the form and are left out. A thought stands at the beginning alone:
    later, text that has its mark speaks of it.
    """

    def __init__(
        self,
        thoughts: ThoughtMarks | None,
        calls: Sequence[CallForm],
        tools: OfferedTools,
        token_marks: TokenMarks,
        *,
        in_thought: bool = False,
    ) -> None:
        self._tools = tools
        self._token_marks = token_marks
        self._thought_opening = token_marks.encode(thoughts.opening) if thoughts else None
        self._thought_closing = token_marks.encode(thoughts.closing) if thoughts else ""
        known_calls = [] if tools.empty else [marks for form in calls for marks in form.calls]
        self._calls = {token_marks.encode(marks.opening): marks for marks in known_calls if not marks.at_start}
        self._bare_calls = {marks.opening: marks for marks in known_calls if marks.at_start}
        self._wrappers = [token_marks.encode(mark) for form in calls for mark in form.wrappers]
        self._mode: Literal["content", "reasoning", "call"] = "reasoning" if in_thought else "content"
        self._rest = ""
        """What has not become a part."""
        self._searched = 0
        """How much of a call's rest has no closing mark: a search from its beginning at each token is quadratic."""
        self._closings_seen = 0
        self._call = ("", CallMarks("", (), lambda _body, _tools: None))
        self._line_feeds = ""
        self._behind_mark = in_thought
        self._at_start = True
        self._behind_thought = False
        self._is_plain = not (self._calls or self._bare_calls or self._wrappers or thoughts)

    def add_text(self, text: str) -> list[AnswerPart]:
        """Take text; return the parts that are certain now."""
        self._rest += text
        return list(self._take_parts())

    def finish_text(self) -> list[AnswerPart]:
        """Return what is left; the answer may end in place of a closing mark."""
        parts: list[AnswerPart] = []
        if self._mode == "call":
            parts = self._close_call(len(self._rest), "") or self._say_text(self._rest)
        elif self._mode == "reasoning":
            parts = self._think_text(self._rest)
        else:
            parts = self._say_text(self._rest)
        self._rest = ""
        if self._line_feeds and self._mode == "reasoning":
            parts.append(AnswerPart("reasoning", self._line_feeds))
        elif self._line_feeds and not self._behind_mark:
            parts.append(AnswerPart("content", self._line_feeds))
        self._line_feeds = ""
        return parts

    def _take_parts(self) -> Iterator[AnswerPart]:
        while True:
            mode, length = self._mode, len(self._rest)
            if mode == "content":
                yield from self._take_content()
            elif mode == "reasoning":
                yield from self._take_thought()
            else:
                yield from self._take_call()
            if (self._mode, len(self._rest)) == (mode, length) or not self._rest:
                return

    def _take_content(self) -> list[AnswerPart]:
        if self._at_start and not self._is_plain and not self._rest.strip():
            # White space in front of a thought or a call belongs to the form: it waits.
            return []
        bare = self._find_bare_call() if self._at_start else None
        if bare is not None:
            return self._open_call(len(self._rest) - len(self._rest.lstrip()), *bare)
        openings = [*self._calls, *self._wrappers]
        if self._at_start and self._thought_opening is not None:
            openings.append(self._thought_opening)
        places = [(place, -len(opening), opening) for opening in openings if (place := self._rest.find(opening)) >= 0]
        if not places:
            safe_length = len(self._rest) - max((overlap_length(self._rest, mark) for mark in openings), default=0)
            text, self._rest = self._rest[:safe_length], self._rest[safe_length:]
            return self._say_text(text)
        place, _, opening = min(places)
        if opening in self._calls:
            return self._open_call(place, opening, self._calls[opening])
        text, behind = self._rest[:place], self._rest[place + len(opening) :]
        if opening == self._thought_opening and text.strip():
            # Text has begun in front of it.
            self._rest = self._rest[place:]
            return self._say_text(text)
        self._rest = behind
        if opening != self._thought_opening:
            return self._say_text(text)
        self._line_feeds, self._mode, self._behind_mark = "", "reasoning", True
        return []

    def _find_bare_call(self) -> tuple[str, CallMarks] | None:
        text = self._rest.lstrip()
        return next(((opening, marks) for opening, marks in self._bare_calls.items() if text.startswith(opening)), None)

    def _open_call(self, place: int, opening: str, marks: CallMarks) -> list[AnswerPart]:
        parts = self._say_text(self._rest[:place])
        self._rest, self._call, self._mode = self._rest[place:], (opening, marks), "call"
        self._searched, self._closings_seen = len(opening), 0
        return parts

    def _take_thought(self) -> list[AnswerPart]:
        closing = self._thought_closing
        place = self._rest.find(closing)
        if place < 0:
            safe_length = len(self._rest) - overlap_length(self._rest, closing)
            text, self._rest = self._rest[:safe_length], self._rest[safe_length:]
            return self._think_text(text)
        parts = self._think_text(self._rest[:place])
        self._rest = self._rest[place + len(closing) :]
        self._line_feeds, self._mode, self._behind_mark, self._behind_thought = "", "content", True, True
        return parts

    def _take_call(self) -> list[AnswerPart]:
        closings = [self._token_marks.encode(mark) for mark in self._call[1].closings]
        places = [(place, mark) for mark in closings if (place := self._rest.find(mark, self._searched)) >= 0]
        if not places:
            longest = max(map(len, closings), default=0)
            self._searched = max(self._searched, len(self._rest) - longest + 1)
            return []
        place, closing = min(places)
        parts = self._close_call(place, closing)
        if parts is not None:
            return parts
        self._closings_seen += 1
        self._searched = place + len(closing)
        if self._closings_seen < _MOST_CLOSINGS:
            # The mark may stand in an argument: the call may end at the next one.
            return self._take_call()
        text, self._rest, self._mode = self._rest[: self._searched], self._rest[self._searched :], "content"
        return self._say_text(text)

    def _close_call(self, place: int, closing: str) -> list[AnswerPart] | None:
        """Return the parts of a call that ends at a place of the rest; None if that is no call."""
        opening, marks = self._call
        # What is no call from the first opening mark may be one from the last: text may speak of the mark.
        for begin in dict.fromkeys((0, self._rest.rfind(opening, 0, place) if not marks.at_start else 0)):
            body = self._rest[begin if marks.at_start else begin + len(opening) : place]
            calls = marks.read_calls(self._token_marks.decode(body), self._tools)
            if calls is not None:
                text, raw = self._rest[:begin], self._rest[begin : place + len(closing)]
                self._rest, self._mode = self._rest[place + len(closing) :], "content"
                return [*self._say_text(text), *self._make_calls(calls, raw)]
        return None

    def _make_calls(self, calls: list[CallText], raw: str) -> list[AnswerPart]:
        if not all(self._tools.has_name(call.name) for call in calls):
            return self._say_text(raw)
        self._line_feeds, self._behind_mark, self._at_start, self._behind_thought = "", True, False, False
        return [AnswerPart("tool_call", call.arguments, call.name) for call in calls]

    def _say_text(self, text: str) -> list[AnswerPart]:
        if not text:
            return []
        if self._behind_thought:
            # The line feeds behind a thought are the form's.
            text = text.lstrip("\n")
            if not text:
                return []
        if self._is_plain:
            return [AnswerPart("content", self._token_marks.decode(text))]
        return self._hold_line_feeds("content", text)

    def _think_text(self, text: str) -> list[AnswerPart]:
        if self._behind_mark:
            text = text.lstrip("\n")
        return self._hold_line_feeds("reasoning", text) if text else []

    def _hold_line_feeds(self, kind: Literal["content", "reasoning"], text: str) -> list[AnswerPart]:
        """Let line feeds at the end wait: a mark may follow, and they are left out then."""
        text = self._line_feeds + text
        shown_text = text.rstrip("\n")
        self._line_feeds = text[len(shown_text) :]
        if not shown_text:
            return []
        self._behind_mark = False
        if kind == "content":
            self._at_start, self._behind_thought = self._at_start and not shown_text.strip(), False
        return [AnswerPart(kind, self._token_marks.decode(shown_text))]
