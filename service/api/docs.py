"""The rendered API documentation at `/docs`: Swagger UI, whose files come from a package, not from another site."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

_STATIC = "/docs/static"
# The page starts Swagger UI by a script of its own, and Swagger UI draws with styles and pictures in data: addresses.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def add_docs(app: FastAPI) -> None:
    """Serve the pages. They work without the internet."""
    app.mount(_STATIC, StaticFiles(directory=Path(str(files("fastapi_offline") / "static"))), name="docs")

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url=app.openapi_url or "",
            title=f"{app.title} {app.version}",
            swagger_js_url=f"{_STATIC}/swagger-ui-bundle.js",
            swagger_css_url=f"{_STATIC}/swagger-ui.css",
            swagger_favicon_url="data:,",
            swagger_ui_parameters={"docExpansion": "none", "persistAuthorization": False},
        )
        page.headers["Content-Security-Policy"] = _POLICY
        return page
