"""Origins of web pages: scheme, host and port, as browsers send them."""

from __future__ import annotations

from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_origins(text: str) -> tuple[str, ...]:
    """Return the origins of a list with commas, in the form in which browsers send them. Raises ValueError."""
    origins = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if origins == ("*",):
        return origins
    return tuple(dict.fromkeys(_parse_origin(origin) for origin in origins))


def _parse_origin(text: str) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or text.rstrip("/").count("/") != 2 or "@" in text:
        raise ValueError(
            f"{text[:100]!r} is not an origin: use scheme, host and port, such as https://app.example.com or "
            "http://localhost:5173, with commas between them, or * alone"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}")
