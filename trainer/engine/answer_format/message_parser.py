"""Answers that are messages with a header each, which names a channel or a recipient."""

from __future__ import annotations

from trainer.engine.answer_format.grammar import MessageForm, MessageHeader
from trainer.engine.answer_format.parts import AnswerPart, OfferedTools, PartKind, overlap_length
from trainer.engine.answer_format.token_marks import TokenMarks


class MessageParser:
    """An `AnswerParser`. Messages of one kind are joined by a line feed.

    A message whose header is unknown, or that calls a function that was not offered, is text with its header.
    """

    def __init__(self, form: MessageForm, tools: OfferedTools, token_marks: TokenMarks, *, header: str = "") -> None:
        self._form = form
        self._tools = tools
        self._token_marks = token_marks
        self._opening, self._body = token_marks.encode(form.opening), token_marks.encode(form.body)
        self._closings = [token_marks.encode(mark) for mark in form.closings]
        self._header_starts = [token_marks.encode(start) for start in form.header_starts]
        self._rest = ""
        self._prompt_header = header
        """What the prompt has written of the first header: it is no part of the answer."""
        self._searched = 0
        """How much of a call's body has no mark."""
        self._place = "header"
        self._kind: PartKind = "content"
        self._call = ("", "")
        self._raw_header = ""
        self._kinds_shown: set[PartKind] = set()
        self._begins_message = False
        if form.body in header:
            self._prompt_header = ""
            self._open_body(form.read_header(header.partition(form.body)[0]), "")

    def add_text(self, text: str) -> list[AnswerPart]:
        """Take text; return the parts that are certain now."""
        self._rest += text
        parts: list[AnswerPart] = []
        while self._rest:
            before = (self._place, len(self._rest))
            if self._place == "header":
                parts += self._take_header()
            elif self._place == "body":
                parts += self._take_body()
            else:
                parts += self._take_between()
            if (self._place, len(self._rest)) == before:
                break
        return parts

    def finish_text(self) -> list[AnswerPart]:
        """Return what is left; the answer may end in place of a closing mark."""
        rest, self._rest = self._rest, ""
        if self._place == "body":
            return self._close_call(rest) if self._kind == "tool_call" else self._show_part(self._kind, rest)
        if self._place == "between":
            return [] if not rest.strip() else self._show_message("content", rest)
        return self._show_message("content", self._raw_header + rest)

    def _take_header(self) -> list[AnswerPart]:
        begun_text = (self._token_marks.encode(self._prompt_header) + self._rest).lstrip()
        if begun_text and not any(
            begun_text.startswith(start) or start.startswith(begun_text) for start in self._header_starts
        ):
            return self._take_headless_text()
        place = self._rest.find(self._body)
        if place < 0:
            return []
        header, mark_end = self._rest[:place], place + len(self._body)
        raw, self._rest = self._raw_header + self._rest[:mark_end], self._rest[mark_end:]
        meaning = self._form.read_header(self._token_marks.decode(self._prompt_header + header))
        self._prompt_header = ""
        self._open_body(meaning, raw)
        if meaning is None:
            return self._show_message("content", raw)
        return []

    def _take_headless_text(self) -> list[AnswerPart]:
        self._prompt_header = ""
        self._open_body(MessageHeader("content"), "")
        text, self._raw_header = self._raw_header, ""
        return self._show_part("content", text) if text else []

    def _open_body(self, meaning: MessageHeader | None, raw: str) -> None:
        self._place, self._begins_message, self._raw_header = "body", meaning is not None, ""
        self._searched = 0
        self._kind = "content" if meaning is None else meaning.kind
        self._call = ("", "") if meaning is None else (meaning.tool, raw)

    def _take_body(self) -> list[AnswerPart]:
        marks = [*self._closings, self._opening]
        places = [(place, mark) for mark in marks if (place := self._rest.find(mark, self._searched)) >= 0]
        if not places:
            if self._kind == "tool_call":
                self._searched = max(0, len(self._rest) - max(map(len, marks)))
                return []
            safe_length = len(self._rest) - max(overlap_length(self._rest, mark) for mark in marks)
            text, self._rest = self._rest[:safe_length], self._rest[safe_length:]
            return self._show_part(self._kind, text)
        place, mark = min(places)
        text = self._rest[:place]
        self._rest = self._rest[place if mark == self._opening else place + len(mark) :]
        self._place = "between"
        return self._close_call(text) if self._kind == "tool_call" else self._show_part(self._kind, text)

    def _take_between(self) -> list[AnswerPart]:
        text = self._rest.lstrip()
        opening = self._opening + self._form.role
        if text.startswith(opening):
            self._raw_header = opening
            self._rest, self._place = text[len(opening) :], "header"
            return []
        if opening.startswith(text):
            return []
        self._place, self._searched = "body", 0
        self._kind, self._begins_message = "content", True
        if not text.startswith(self._opening):
            return []
        # A message of another role: left in the rest, its mark would end the text in front of it again and again.
        self._rest = text[len(self._opening) :]
        return self._show_message("content", self._opening)

    def _close_call(self, body: str) -> list[AnswerPart]:
        tool, raw_header = self._call
        arguments = None
        if self._tools.has_name(tool):
            arguments = self._form.read_arguments(tool, self._token_marks.decode(body), self._tools)
        if arguments is None:
            return self._show_message("content", raw_header + body)
        return [AnswerPart("tool_call", arguments, tool)]

    def _show_message(self, kind: PartKind, text: str) -> list[AnswerPart]:
        self._begins_message = True
        return self._show_part(kind, text)

    def _show_part(self, kind: PartKind, text: str) -> list[AnswerPart]:
        if not text:
            return []
        if self._begins_message and kind in self._kinds_shown:
            text = "\n" + text
        self._begins_message = False
        self._kinds_shown.add(kind)
        return [AnswerPart(kind, self._token_marks.decode(text))]
