"""Small pieces of HTTP that several domains use."""

from __future__ import annotations

import base64
from urllib.parse import quote


def attachment_headers(filename: str, size: int, sha256: str) -> dict[str, str]:
    """Return the headers of a download: its name (RFC 6266), its size, its digest (RFC 9530) and a strong ETag."""
    digest = base64.b64encode(bytes.fromhex(sha256)).decode()
    return {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(filename)}",
        "Content-Length": str(size),
        "Content-Digest": f"sha-256=:{digest}:",
        "ETag": f'"{sha256}"',
        "X-Content-Type-Options": "nosniff",
    }
