"""A multipart form (RFC 7578) read as a stream: the file's bytes are passed on at once, so memory stays flat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.kit.errors import InvalidRequest

_MAX_FIELD_BYTES = 64 * 1024
_MAX_FIELDS = 64


class FileSink(Protocol):
    """Takes the bytes of the form's file, piece by piece."""

    def write(self, chunk: bytes) -> None:
        """Take the next bytes; an exception ends the upload."""
        ...


class StreamedForm:
    """Push the body in with `feed`: fields gather in `fields`, the part `file_field` goes to `open_file`'s sink."""

    def __init__(self, content_type: str, open_file: Callable[[str], FileSink], *, file_field: str = "file") -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidRequest(f"The body must be multipart/form-data with a boundary and a part `{file_field}`.")
        self._file_field = file_field
        self.fields: dict[str, str] = {}
        self.has_file = False
        self._open_file = open_file
        self._sink: FileSink | None = None
        self._name = ""
        self._value = bytearray()
        self._headers: dict[str, bytes] = {}
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._parts = 0
        self._complete = False
        self._parser = self._make_parser(boundary)

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes of the body. Raises InvalidRequest if they are not a multipart form."""
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise InvalidRequest(f"The body is not a valid multipart form: {error}") from error

    def finish(self) -> None:
        """Raise InvalidRequest unless the form came to its end and had a file."""
        if not self._complete:
            raise InvalidRequest("The multipart form ends too early: its closing boundary is missing.")
        if not self.has_file:
            raise InvalidRequest(f"The form has no part `{self._file_field}`.", param=self._file_field)

    def _make_parser(self, boundary: bytes) -> MultipartParser:
        try:
            return MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_header_field": lambda data, start, end: self._header_name.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_end": self._mark_complete,
                },
            )
        except FormParserError as error:
            raise InvalidRequest(f"The boundary of the multipart form cannot be used: {error}.") from error

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MAX_FIELDS:
            raise InvalidRequest(f"The form has more than {_MAX_FIELDS} fields.")
        self._headers, self._sink, self._name = {}, None, ""
        self._value.clear()

    def _header_end(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name != self._file_field:
            return
        if self.has_file:
            raise InvalidRequest(
                f"The form has more than one part `{self._file_field}`; send one a request.", param=self._file_field
            )
        self.has_file = True
        self._sink = self._open_file(options.get(b"filename", b"").decode("utf-8", "replace"))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._sink is not None:
            self._sink.write(data[start:end])
            return
        self._value.extend(data[start:end])
        if len(self._value) > _MAX_FIELD_BYTES:
            raise InvalidRequest(f"The form's field '{self._name[:64]}' is longer than 64 KiB.", param=self._name[:64])

    def _part_end(self) -> None:
        if self._sink is not None:
            return
        try:
            self.fields[self._name] = self._value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"The form's field '{self._name[:64]}' is not UTF-8.", param=self._name[:64]
            ) from error

    def _mark_complete(self) -> None:
        self._complete = True
