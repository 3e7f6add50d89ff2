"""Lines of a streamed HTTP answer: each is JSON, or an event of a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import httpx


async def stream_lines(response: httpx.Response) -> AsyncGenerator[str]:
    """Yield the answer's lines without their ends, which are LF or CR LF alone.

    httpx's `aiter_lines` ends a line at U+0085, U+2028 and their like too, which JSON has inside of strings: a chat's
    answer that holds one would be cut into two halves, neither of them JSON. Raises httpx.HTTPError.
    """
    unfinished_line = b""
    async for piece in response.aiter_bytes():
        *lines, unfinished_line = (unfinished_line + piece).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode()
    if unfinished_line:
        yield unfinished_line.decode()
