"""Downloads, whole and right or not at all: written beside their place, checked, then renamed."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

import httpx
from pydantic import BaseModel, Field, ValidationError
from typing_extensions import Self

from burnish._partial import Origin, PartialFile
from burnish._upload import Progress
from burnish.errors import DownloadCorrupt, NotFoundError

MANIFEST = "manifest.json"
_MANIFEST_LIMIT = 16 * 2**20
_CHUNK = 2**16


class _ManifestEntry(BaseModel, defer_build=True):
    path: str
    bytes: int = Field(ge=0)
    sha256: str


class _Manifest(BaseModel, defer_build=True):
    files: list[_ManifestEntry] = Field(min_length=1)


class Download:
    """One download to the file `path`, or, by `finish_extracted`, to the folder of that name.

    A context manager. What has arrived stays beside the target if a later download can resume it: after a
    broken connection, an interrupt, a killed process. Wrong bytes, or ones that lost their source, do not.
    """

    def __init__(self, path: Path, *, digest_required: bool, on_progress: Progress | None) -> None:
        self.path = path
        self._digest_required = digest_required
        self._on_progress = on_progress
        self._partial: PartialFile | None = None
        self._stated: bytes | None = None
        self._total: int | None = None
        self._recalled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._partial is not None:
            self._partial.close(keep=error is not None and not isinstance(error, (DownloadCorrupt, NotFoundError)))

    @property
    def done(self) -> int:
        """How many bytes are there."""
        return 0 if self._partial is None else self._partial.size

    def open_partial(self) -> dict[str, str]:
        """Take up what an earlier download left; return the headers that ask for the rest. Raises DownloadBusy."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = PartialFile(self.path)
        self._partial.load_earlier()
        origin = self._partial.origin
        if origin is not None:
            self._recalled = True
            self._stated, self._total = bytes.fromhex(origin.sha256), origin.total
        return self.rest_headers()

    def start_response(self, response: httpx.Response) -> None:
        """Begin with the head of an answer, or continue if it is the requested rest."""
        assert self._partial is not None
        if self.done and response.headers.get("content-range", "").startswith(f"bytes {self.done}-"):
            return
        self._recalled = False
        self._stated = content_digest(response.headers)
        length = response.headers.get("content-length", "")
        self._total = int(length) if length.isdigit() else None
        self._partial.restart_with(self._build_origin(response.headers.get("etag", "")))

    def _build_origin(self, etag: str) -> Origin | None:
        if not self._stated or self._total is None:
            return None
        return Origin(etag=etag, sha256=self._stated.hex(), total=self._total)

    def rest_headers(self) -> dict[str, str]:
        """Return the headers that ask for what is missing; none if only all of it can be asked for."""
        origin = self._partial.origin if self._partial else None
        if origin is None or not origin.resumable or not 0 < self.done < origin.total:
            return {}
        return {"Range": f"bytes={self.done}-", "If-Range": origin.etag}

    def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raises OSError if the disk is full."""
        assert self._partial is not None
        self._partial.write(chunk)
        if self._on_progress:
            self._on_progress(self.done, self._total)

    def must_restart(self) -> bool:
        """Return whether to download anew: what an earlier download left was damaged. It is thrown away then."""
        if not self._recalled or self._is_right():
            return False
        assert self._partial is not None
        self._recalled = False
        self._partial.restart_with(None)
        return True

    def finish(self) -> Path:
        """Check the hash and put the file in its place. Raises DownloadCorrupt."""
        partial = self._verify_partial()
        partial.publish()
        return self.path

    def finish_extracted(self) -> Path:
        """Check the hash and unpack the archive as the new folder. Raises DownloadCorrupt."""
        extract_archive(self._verify_partial().path, self.path)
        return self.path

    def _is_right(self) -> bool:
        assert self._partial is not None
        return self._stated is not None and self._stated.hex() == self._partial.flush_and_hash()

    def _verify_partial(self) -> PartialFile:
        assert self._partial is not None
        actual_sha256 = self._partial.flush_and_hash()
        if self._stated is None and self._digest_required:
            raise DownloadCorrupt("The server sent no SHA-256 in Content-Digest, so the download is not trusted.")
        if self._stated is not None and self._stated.hex() != actual_sha256:
            raise DownloadCorrupt(
                f"The download has SHA-256 {actual_sha256}, the server stated {self._stated.hex()}; "
                "nothing was kept. Download it again."
            )
        return self._partial


def target_path(path: str | os.PathLike[str], name: str) -> Path:
    """Return where a file named `name` by the server goes: into `path` if that is a folder, else there."""
    path = Path(path)
    return path / name if path.is_dir() else path


def content_digest(headers: httpx.Headers) -> bytes | None:
    """Return the SHA-256 of `Content-Digest` (RFC 9530: `sha-256=:base64:`), None if it is not there."""
    for member in headers.get("content-digest", "").split(","):
        name, _, value = member.strip().partition("=")
        if name.lower() == "sha-256" and len(value) > 2 and value[0] == value[-1] == ":":
            try:
                return base64.b64decode(value[1:-1], validate=True)
            except ValueError:
                return b""  # stated, but equal to no hash
    return None


def require_absent(folder: Path) -> None:
    """Raise FileExistsError unless `folder` is missing or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists already; name a folder that is new or empty.")


def extract_archive(archive: Path, folder: Path) -> None:
    """Unpack exactly the files that the archive's manifest lists, each checked against its size and SHA-256.

    Raises DownloadCorrupt if a name leads outside, an entry is a link, or a file is missing or differs.
    """
    require_absent(folder)
    temporary = _temporary_sibling(folder)
    temporary.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as source:
            _unpack_archive(source, temporary)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise DownloadCorrupt(f"The archive cannot be read: {error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack_archive(source: zipfile.ZipFile, target: Path) -> None:
    for info in source.infolist():
        _require_safe(info.filename)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DownloadCorrupt(f"The archive's entry {info.filename!r} is a link; nothing was unpacked.")
    names = set(source.namelist())
    if MANIFEST not in names:
        raise DownloadCorrupt(f"The archive holds no {MANIFEST}, so its files cannot be checked.")
    if source.getinfo(MANIFEST).file_size > _MANIFEST_LIMIT:
        raise DownloadCorrupt(f"The archive's {MANIFEST} is too large to be one.")
    text = source.read(MANIFEST)
    for entry in _parse_manifest(text).files:
        _require_safe(entry.path)
        if entry.path not in names:
            raise DownloadCorrupt(f"The archive lacks {entry.path}, which its manifest lists.")
        _copy_entry(source, entry, target / entry.path)
    (target / MANIFEST).write_bytes(text)


def _parse_manifest(text: bytes) -> _Manifest:
    try:
        return _Manifest.model_validate_json(text)
    except ValidationError as error:
        raise DownloadCorrupt(f"The archive's {MANIFEST} cannot be read: {error.errors()[0]['msg']}.") from None


def _copy_entry(source: zipfile.ZipFile, entry: _ManifestEntry, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, bytes_left = hashlib.sha256(), entry.bytes
    with source.open(entry.path) as reader, target.open("xb") as writer:
        while chunk := reader.read(_CHUNK):
            bytes_left -= len(chunk)
            if bytes_left < 0:  # stop here: an archive can unpack to any size
                break
            digest.update(chunk)
            writer.write(chunk)
    if bytes_left or digest.hexdigest() != entry.sha256.lower():
        raise DownloadCorrupt(f"{entry.path} differs from the archive's manifest; nothing was unpacked.")


def _require_safe(name: str) -> None:
    path = PurePosixPath(name)
    unsafe = not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name
    if unsafe or "\0" in name:
        raise DownloadCorrupt(f"The archive's entry {name!r} leads outside its folder; nothing was unpacked.")


def _temporary_sibling(path: Path) -> Path:
    return path.parent / f".{path.name}.{secrets.token_hex(6)}.part"


def filename_of(identifier: str, suffix: str) -> str:
    """Return a file name for an id of the server's."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in identifier).lstrip(".") + suffix
