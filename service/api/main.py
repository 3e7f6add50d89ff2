"""The API process: uvicorn on the assembled application."""

from __future__ import annotations

import logging

from service import migrations
from service.api.app import create_app
from service.api.server import BoundedServer, open_listeners
from service.context import open_context
from service.kit import telemetry
from service.kit.descriptors import raise_descriptor_limit
from service.kit.reserve import DiskReserve
from service.kit.settings import Settings

_log = logging.getLogger(__name__)


def run_api(settings: Settings, host: str, port: int, *, name: str | None = None, shared: bool = False) -> int:
    """Serve until SIGTERM or SIGINT, the address `shared` with other processes or not.

    Raises SettingsError if a setting or the database's schema is wrong, OSError if the address is taken.
    """
    descriptors = raise_descriptor_limit()
    telemetry.set_up_telemetry(settings, "api", name)
    reserve = DiskReserve.from_settings(settings)
    reserve.release_if_full()
    context = open_context(settings)
    migrations.check_schema(settings)
    reserve.fill()
    server = BoundedServer(create_app(context, reserve=reserve), settings)
    sockets = open_listeners(host, port, shared=shared)
    _log.info(
        "Listening on port %d of %s%s, for %d connections at once (of %d open files)",
        port,
        host,
        ", which other processes may share" if shared else "",
        server.connections.most,
        descriptors,
    )
    server.run(sockets)
    context.db.close()
    return 0 if server.started else 1
