"""Server-sent events, parsed by the rules of the WHATWG HTML standard, section 9.2.6."""

from __future__ import annotations

import codecs
from typing import NamedTuple


class Frame(NamedTuple):
    """One dispatched event; `id` is the last id seen on the connection."""

    event: str
    data: str
    id: str | None


class Decoder:
    """Turns the bytes of one connection into frames; what is incomplete at its end is dropped, as it must be.

    Lines end by LF, CRLF or CR only: JSON may hold other separators (U+2028, U+0085) as they are.
    """

    def __init__(self) -> None:
        self.retry: float | None = None
        """Seconds that the server asks to wait before a new connection."""
        self._decode = codecs.getincrementaldecoder("utf-8-sig")(errors="replace").decode
        self._buffer = ""
        self._skip_newline = False
        self._id: str | None = None
        self._event = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take more bytes and return the frames that they complete."""
        text = self._decode(chunk)
        if self._skip_newline and text:
            text = text.removeprefix("\n")
            self._skip_newline = False
        self._skip_newline = self._skip_newline or text.endswith("\r")
        *lines, self._buffer = (self._buffer + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        return [frame for line in lines if (frame := self._parse_line(line)) is not None]

    def _parse_line(self, line: str) -> Frame | None:
        if not line:
            return self._dispatch_frame()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value) / 1000
        return None

    def _dispatch_frame(self) -> Frame | None:
        event, data = self._event or "message", self._data
        self._event, self._data = "", []
        return Frame(event, "\n".join(data), self._id) if data else None
