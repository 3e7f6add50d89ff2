"""The URL that names a storage, taken apart; each scheme reads its own from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from service.storage.errors import InvalidStorageUrl


@dataclass(frozen=True)
class StorageUrl:
    """The parts of `scheme://host/path?options#fragment`, and the credentials that never stand in a URL."""

    host: str
    path: str
    """As written; `decoded_path` without its percent signs."""
    query: str = ""
    fragment: str = ""
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    forms: str = ""
    """The sentence that shows how each scheme's URL looks."""

    @property
    def decoded_path(self) -> str:
        """The path with percent signs decoded."""
        return unquote(self.path)

    @property
    def options(self) -> dict[str, str]:
        return dict(parse_qsl(self.query))

    def refusal(self, reason: str) -> InvalidStorageUrl:
        """Return the error that says what is wrong with the URL and how one looks. `reason` must not repeat values."""
        return InvalidStorageUrl(f"The storage URL {reason}. {self.forms}")
