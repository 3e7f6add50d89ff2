"""The head of a request: what two servers could read differently, or cannot be a request to this one, is refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import httptools

MOST_HEADERS = 128
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(:[0-9]{0,5})?")
_ONCE = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"idempotency-key",
        b"transfer-encoding",
    }
)
"""Headers of which a second one would leave open which of the two holds."""


class UnreadableRequest(Exception):
    """A head that is not a proper request: the status of the answer, and the sentence in it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


def check_head(version: str, target: bytes, headers: Sequence[tuple[bytes, bytes]], *, upgrade: bool) -> None:
    """Raise UnreadableRequest unless the head is a proper one (RFC 9112).

    `headers` have names in small letters; `upgrade` is whether the request asks for another protocol.
    """
    _check_version(version)
    counts = Counter(name for name, _ in headers)
    for name in _ONCE:
        if counts[name] > 1:
            raise UnreadableRequest(400, f"The request has the header {_show_header_name(name)} twice: send it once.")
    values = dict(headers)
    _check_host(version, values.get(b"host"))
    _check_framing(version, values, upgrade=upgrade)
    _check_target(target, values.get(b"host"))


def _check_version(version: str) -> None:
    major = version.partition(".")[0]
    if major == "0":
        raise UnreadableRequest(400, "The request line names no version of HTTP: end it with HTTP/1.1.")
    if major != "1":
        raise UnreadableRequest(505, f"HTTP/{version} is not served on this connection: send HTTP/1.1.")


def _check_host(version: str, host: bytes | None) -> None:
    if host is None:
        if version != "1.0":
            raise UnreadableRequest(400, "The request has no Host header: HTTP/1.1 needs one.")
    elif not _HOST.fullmatch(host):
        raise UnreadableRequest(400, "The Host header is not a host name or address, with or without a port.")


def _check_framing(version: str, headers: dict[bytes, bytes], *, upgrade: bool) -> None:
    coding = headers.get(b"transfer-encoding")
    if upgrade and (coding is not None or headers.get(b"content-length", b"0").strip() != b"0"):
        # The parser hands such a body over to the other protocol: it would be lost, or read as a request.
        raise UnreadableRequest(400, "A request with a body cannot ask for an Upgrade: send it as plain HTTP/1.1.")
    if coding is None:
        return
    if version == "1.0":
        raise UnreadableRequest(400, "Transfer-Encoding is not part of HTTP/1.0: send Content-Length, or HTTP/1.1.")
    if coding.strip().lower() != b"chunked":
        raise UnreadableRequest(400, "The only Transfer-Encoding that this server reads is chunked.")
    if b"content-length" in headers:
        raise UnreadableRequest(400, "The request has both Content-Length and Transfer-Encoding: send one of them.")


def _check_target(target: bytes, host: bytes | None) -> None:
    if not target.isascii():
        raise UnreadableRequest(400, "The request target has characters beyond ASCII: send them percent-encoded.")
    if b"#" in target:
        raise UnreadableRequest(400, "The request target has a fragment (#): leave it out.")
    if target.startswith((b"/", b"*")):
        return
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise UnreadableRequest(400, "The request target is neither a path nor an http URL.") from None
    if (url.schema or b"").lower() not in (b"http", b"https") or url.userinfo:
        raise UnreadableRequest(400, "The request target is neither a path nor an http URL without a user.")
    if not url.path:
        raise UnreadableRequest(400, "The request target has no path: end it with one, such as /.")
    authority = target.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0]
    if host is not None and authority.lower() != host.lower():
        raise UnreadableRequest(400, "The request target names another host than the Host header.")


def _show_header_name(name: bytes) -> str:
    return name.decode("ascii").title()
