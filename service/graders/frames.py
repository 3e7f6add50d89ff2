"""Messages between the API and the processes that grade for it: a few pieces of bytes, each behind its length."""

from __future__ import annotations

import struct
from typing import BinaryIO

HEADER = struct.Struct(">II")
"""The lengths of the two pieces of a message."""
Pieces = tuple[bytes, bytes]


def pack_message(pieces: Pieces) -> bytes:
    """Return a message's bytes."""
    return HEADER.pack(*map(len, pieces)) + b"".join(pieces)


def write_message(target: BinaryIO, pieces: Pieces) -> None:
    """Write a message, at once."""
    target.write(pack_message(pieces))
    target.flush()


def read_message(source: BinaryIO) -> Pieces | None:
    """Return the next message, None if the other side has gone."""
    header = source.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    first, second = HEADER.unpack(header)
    return source.read(first), source.read(second)
