"""The description of the API: the document itself, and its rendering at `/docs`.

The page is Swagger UI; its files come from a package, not from another site.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from service.api.shared import SharedResult

DOCUMENT_PATH = "/openapi.json"
_STATIC = "/docs/static"
# Swagger UI draws with styles and pictures in data: addresses; the one script in the page is known by its hash.
_POLICY = (
    "default-src 'none'; script-src 'self' 'sha256-{script}'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class _EncodedDocument:
    plain: bytes
    packed: bytes
    tag: str

    def make_response(self, *, accept_encoding: str, if_none_match: str) -> Response:
        use_gzip = _accepts_gzip(accept_encoding)
        # A strong tag names one sequence of bytes, so that the packed form has its own.
        tag = f'"{self.tag}{"-gzip" if use_gzip else ""}"'
        headers = {"ETag": tag, "Vary": "Accept-Encoding", "Cache-Control": "no-cache"}
        tags = {part.strip().removeprefix("W/") for part in if_none_match.split(",")}
        if tag in tags or "*" in tags:
            return Response(status_code=304, headers=headers)
        if use_gzip:
            headers["Content-Encoding"] = "gzip"
        return Response(self.packed if use_gzip else self.plain, media_type="application/json", headers=headers)


def add_docs(app: FastAPI) -> None:
    """Serve the document, encoded once a process, and the page. They work without the internet."""
    app.mount(_STATIC, StaticFiles(directory=Path(str(files("fastapi_offline") / "static"))), name="docs")
    page = _make_docs_page(app)
    document = SharedResult(lambda: _encode_document(app))

    @app.get("/docs", include_in_schema=False)
    async def serve_docs() -> HTMLResponse:
        return page

    @app.get(DOCUMENT_PATH, include_in_schema=False)
    async def serve_document(request: Request) -> Response:
        headers = request.headers
        document_bytes = await document.get()
        return document_bytes.make_response(
            accept_encoding=headers.get("accept-encoding", ""), if_none_match=headers.get("if-none-match", "")
        )


def _make_docs_page(app: FastAPI) -> HTMLResponse:
    page = get_swagger_ui_html(
        openapi_url=DOCUMENT_PATH,
        title=f"{app.title} {app.version}",
        swagger_js_url=f"{_STATIC}/swagger-ui-bundle.js",
        swagger_css_url=f"{_STATIC}/swagger-ui.css",
        swagger_favicon_url="data:,",
        swagger_ui_parameters={"docExpansion": "none", "persistAuthorization": False},
    )
    (script,) = re.findall(rb"<script>(.*?)</script>", bytes(page.body), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    page.headers["Content-Security-Policy"] = _POLICY.format(script=digest)
    return page


def _encode_document(app: FastAPI) -> _EncodedDocument:
    plain = json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()
    return _EncodedDocument(plain, gzip.compress(plain, mtime=0), hashlib.sha256(plain).hexdigest())


def _accepts_gzip(accept_encoding: str) -> bool:
    for part in accept_encoding.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() in ("gzip", "x-gzip", "*"):
            return not re.fullmatch(r"q=0(\.0*)?", weight.strip())
    return False
