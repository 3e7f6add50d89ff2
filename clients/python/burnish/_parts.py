"""A large file on its way in parts: which are still missing, and what the server has."""

from __future__ import annotations

from collections.abc import Iterator

from burnish._upload import UploadPiece, UploadReader
from burnish.errors import UploadError
from burnish.schemas import File, UploadPart, UploadState

PART_BYTES = 16 * 2**20
"""What is sent at once, and at most again after a break."""
IN_PARTS_FROM = 64 * 2**20
"""Files from this size on go in parts by themselves."""


class Parts:
    """The parts of `upload`, in their order. Raises UploadError if it is not the file that was announced."""

    def __init__(self, state: UploadState, upload: UploadReader) -> None:
        if upload.size != state.bytes:
            raise UploadError(
                f"{upload.filename} has {upload.size} bytes, but upload {state.id} was announced with {state.bytes}: "
                "name the same file, or begin anew."
            )
        self._state = state
        self._upload = upload
        self._known = {part.sha256: part.id for part in state.parts}
        self.ids: list[str] = []

    def missing_pieces(self) -> Iterator[UploadPiece]:
        """Yield each piece that the server lacks; report it by `record_sent_part` before the next."""
        for start in range(0, self._state.bytes, PART_BYTES):
            piece = UploadPiece(self._upload, start, min(PART_BYTES, self._state.bytes - start))
            known_part = self._known.get(piece.sha256)
            if known_part is None:
                yield piece
            else:
                self.ids.append(known_part)
                piece.report_sent()

    def record_sent_part(self, piece: UploadPiece, part: UploadPart) -> None:
        """Note a part. Raises UploadError if the server has other bytes."""
        if part.sha256 != piece.sha256:
            raise UploadError(f"A part of {piece.filename} was changed on its way; send the file again.")
        self.ids.append(part.id)

    @staticmethod
    def file_of(state: UploadState) -> File:
        """Return the file that a completed upload made."""
        assert state.file is not None
        return state.file
