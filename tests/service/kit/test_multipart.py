from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.kit.errors import InvalidRequest
from service.kit.multipart import StreamedForm


class Sink:
    def __init__(self) -> None:
        self.data = b""
        self.filename = ""

    def open(self, filename: str) -> Sink:
        self.filename = filename
        return self

    def write(self, chunk: bytes) -> None:
        self.data += chunk


def body(content: bytes, filename: str = "训练.jsonl") -> bytes:
    head = f'--xx\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'.encode()
    purpose = b'\r\n--xx\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--xx--\r\n'
    return head + content + purpose


@given(content=st.binary(max_size=300).filter(lambda data: b"--xx" not in data), cuts=st.lists(st.integers(0, 500)))
def test_the_parts_do_not_depend_on_the_chunks(content: bytes, cuts: list[int]) -> None:
    sink = Sink()
    form = StreamedForm("multipart/form-data; boundary=xx", sink.open)
    data = body(content)
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    for start, end in pairwise(places):
        form.feed(data[start:end])
    form.finish()
    assert sink.data == content
    assert sink.filename == "训练.jsonl"
    assert form.fields == {"purpose": "fine-tune"}


def test_two_files_are_refused() -> None:
    part = b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n1\r\n'
    form = StreamedForm("multipart/form-data; boundary=xx", Sink().open)
    with pytest.raises(InvalidRequest, match="more than one"):
        form.feed(part + part)


def test_an_endless_field_is_refused() -> None:
    form = StreamedForm("multipart/form-data; boundary=xx", Sink().open)
    form.feed(b'--xx\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n')
    with pytest.raises(InvalidRequest, match="64 KiB"):
        form.feed(b"x" * 65_537)


def test_a_form_that_ends_too_early_is_refused() -> None:
    form = StreamedForm("multipart/form-data; boundary=xx", Sink().open)
    form.feed(body(b"1")[:-10])
    with pytest.raises(InvalidRequest, match="ends too early"):
        form.finish()
