"""The API process: uvicorn on the assembled application."""

from __future__ import annotations

import uvicorn

from service import migrations
from service.api.app import create_app
from service.api.protocol import BoundedHttp
from service.context import open_context
from service.kit import telemetry
from service.kit.settings import Settings


def run_api(settings: Settings, host: str, port: int) -> int:
    """Serve until SIGTERM or SIGINT. Raises SettingsError where a setting or the database's schema is wrong."""
    telemetry.begin(settings, "api")
    context = open_context(settings)
    migrations.check(settings)
    config = uvicorn.Config(
        create_app(context),
        host=host,
        port=port,
        http=BoundedHttp,
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    server.run()
    context.db.close()
    return 0 if server.started else 1
