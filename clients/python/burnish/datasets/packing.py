"""What a dataset comes packed in, by its first bytes and never by its name: gzip, zstd, Parquet, or nothing.

gzip and zstd are unpacked as a stream. What grows beyond all reason (a "bomb") is refused while it grows.
"""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from burnish.datasets.errors import UnreadableError

Packing = Literal["none", "gzip", "zstd", "parquet"]

_MAGIC: dict[bytes, Packing] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PAR1": "parquet"}
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
"""Frames that may precede those of zstd (RFC 8878, 3.1.2), as `pzstd` writes them."""
_ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
MAGIC_BYTES = 4
"""How many first bytes identify the packing."""
_PIECE = 1 << 18
_BITE = 1 << 14
"""Bytes taken at once: the decoders copy what they leave, once for each of perhaps very many tiny frames."""
_ALWAYS = 32 << 20
"""So many bytes may come out whatever their ratio is: they fit everywhere."""
_FRAMES_ALLOWED = 10_000
"""So many frames or members may be as small as they like; of more, each holds `_MIN_FRAME_BYTES` on average.

A frame costs time however little is in it: the smallest are 9 bytes that hold nothing.
"""
_MIN_FRAME_BYTES = 1024
_WINDOW_LOG = 23
"""8 MiB, what RFC 8878 has every decoder support: a frame says how much memory it takes, and anybody writes frames."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a packed file may grow: in bytes, and as a multiple of its own size."""

    max_bytes: int = 8 << 30
    max_ratio: int = 200

    def most_bytes(self, packing: Packing, size: int) -> int:
        """Return how many bytes a file of `size` bytes may hold at most."""
        return size if packing == "none" else min(self.max_bytes, max(_ALWAYS, self.max_ratio * size))


def packing_of(start: bytes) -> Packing:
    """Tell a file's packing by its first four bytes."""
    if int.from_bytes(start[:MAGIC_BYTES], "little") in _SKIPPABLE:
        return "zstd"
    result: Packing = "none"
    for magic, packing in _MAGIC.items():
        result = packing if start.startswith(magic) else result
    return result


def unpack_chunks(packing: Packing, chunks: Iterable[bytes], limits: Limits) -> Iterator[bytes]:
    """Yield what a gzip or zstd file holds, or the chunks themselves. Raises UnreadableError."""
    unpacker = Unpacker(packing, limits)
    for chunk in chunks:
        yield from unpacker.feed(chunk)
    unpacker.finish()


def limit_growth(size: int, pieces: Iterable[bytes], limits: Limits) -> Iterator[bytes]:
    """Yield what a file of `size` bytes turned out to hold, within the limits. Raises UnreadableError."""
    unpacked_bytes = 0
    for piece in pieces:
        unpacked_bytes += len(piece)
        _check_growth(size, unpacked_bytes, limits)
        yield piece


class Unpacker:
    """Unpacks bytes that are pushed in, in pieces of at most 256 KiB; one frame or member may follow another."""

    def __init__(self, packing: Packing, limits: Limits) -> None:
        self._packing: Packing = packing
        self._limits = limits
        self._frame: _Frame | None = None
        self._frames = 0
        self._read = self._written = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what the next bytes hold. Raises UnreadableError."""
        if self._packing == "none":
            yield chunk
            return
        for start in range(0, len(chunk), _BITE):
            yield from self._unpack_piece(chunk[start : start + _BITE])

    def _unpack_piece(self, packed_bytes: bytes) -> Iterator[bytes]:
        self._read += len(packed_bytes)
        while packed_bytes or (self._frame is not None and not self._frame.hungry):
            if self._frame is None:
                packed_bytes = (
                    packed_bytes.lstrip(b"\0") if self._frames else packed_bytes
                )  # tapes and block devices pad with zeros
                if not packed_bytes:
                    return
                self._frames += 1
                self._check_frames()
                self._frame = _open_frame(self._packing)
            try:
                piece, packed_bytes = self._frame.unpack_next(packed_bytes)
            except (zlib.error, _zstd_error()) as error:
                raise UnreadableError(self._fault_reason(error)) from None
            if self._frame.ended:
                self._frame = None
            if piece:
                self._written += len(piece)
                _check_growth(self._read, self._written, self._limits)
                yield piece

    def finish(self) -> None:
        """Say that nothing follows. Raises UnreadableError for a file that was cut short."""
        if self._frame is not None:
            raise UnreadableError(f"the {self._packing} data ends too early: the file was cut short; send it again")

    def _check_frames(self) -> None:
        if self._frames > _FRAMES_ALLOWED and self._written < _MIN_FRAME_BYTES * self._frames:
            pieces = "gzip members" if self._packing == "gzip" else "zstd frames"
            raise UnreadableError(
                f"it has more than {_FRAMES_ALLOWED} {pieces} that hold less than {_MIN_FRAME_BYTES} bytes each on "
                "average: compress it in one piece"
            )

    def _fault_reason(self, error: Exception) -> str:
        if "memory" in str(error) or "window" in str(error).lower():
            return "its zstd frames need more than 8 MiB of memory: compress it with level 19 or lower, without --long"
        return f"the {self._packing} data is damaged ({error}): compress it again, or send it uncompressed"


def _check_growth(read: int, unpacked_bytes: int, limits: Limits) -> None:
    if unpacked_bytes > limits.max_bytes:
        raise UnreadableError(
            f"it unpacks to more than {limits.max_bytes} bytes, the most that is read: split it into several files"
        )
    if unpacked_bytes > max(_ALWAYS, limits.max_ratio * read):
        raise UnreadableError(
            f"it unpacks to more than {limits.max_ratio} times its own size, as decompression bombs do: "
            "if it is a dataset, send it uncompressed"
        )


class _Frame(Protocol):
    """One gzip member or zstd frame."""

    @property
    def ended(self) -> bool: ...

    @property
    def hungry(self) -> bool:
        """Whether nothing more comes without further bytes."""
        ...

    def unpack_next(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes and return a piece of what they hold, and what of the bytes is left to be taken."""
        ...


class _GzipMember:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self.hungry = True

    @property
    def ended(self) -> bool:
        return self._inner.eof

    def unpack_next(self, data: bytes) -> tuple[bytes, bytes]:
        piece = self._inner.decompress(data, _PIECE)
        # A full piece may have left some inside, which the next call gives without further bytes.
        self.hungry = self._inner.eof or (len(piece) < _PIECE and not self._inner.unconsumed_tail)
        return piece, self._inner.unused_data if self._inner.eof else self._inner.unconsumed_tail


class _ZstdFrame:
    def __init__(self) -> None:
        zstd = _import_zstd()
        self._inner = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})

    @property
    def ended(self) -> bool:
        return bool(self._inner.eof)

    @property
    def hungry(self) -> bool:
        return bool(self._inner.eof or self._inner.needs_input)

    def unpack_next(self, data: bytes) -> tuple[bytes, bytes]:
        piece = cast("bytes", self._inner.decompress(data, _PIECE))
        return piece, cast("bytes", self._inner.unused_data) if self._inner.eof else b""


def _open_frame(packing: Packing) -> _Frame:
    return _GzipMember() if packing == "gzip" else _ZstdFrame()


def _import_zstd() -> Any:
    """Return Python's zstd module: the standard library's from 3.14 on, before that its backport."""
    try:
        return importlib.import_module(_ZSTD)
    except ImportError:
        raise UnreadableError(
            'it is compressed with zstd, which needs a package more: pip install "burnish[formats]"'
        ) from None


def _zstd_error() -> type[Exception]:
    """Return zstd's error if zstd is loaded."""
    module = sys.modules.get(_ZSTD)
    return cast("type[Exception]", module.ZstdError) if module else zlib.error
