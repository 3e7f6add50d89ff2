"""Lines of an answer end at LF alone, wherever the pieces of the answer end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import httpx
import pytest

from service.kit.response_lines import stream_lines

TEXTS = ["plain", "中文", "a\u2028b\u2029c", "a\x85b", "a\x0bb\x0cc\x1cd\x1ed", "", "🙂"]


async def _lines_of(body: bytes, size: int) -> list[str]:
    async def pieces() -> AsyncGenerator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    return [line async for line in stream_lines(httpx.Response(200, content=pieces()))]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_each_line_is_one_json_text_whatever_characters_are_in_it(size: int, end: bytes) -> None:
    body = b"".join(json.dumps({"text": text}, ensure_ascii=False).encode() + end for text in TEXTS)
    lines = asyncio.run(_lines_of(body, size))
    assert [json.loads(line)["text"] for line in lines] == TEXTS


def test_the_last_line_needs_no_end_and_empty_lines_are_lines() -> None:
    assert asyncio.run(_lines_of(b"a\n\nb", 2)) == ["a", "", "b"]
    assert asyncio.run(_lines_of(b"", 1)) == []
