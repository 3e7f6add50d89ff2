"""The API process: uvicorn on the assembled application."""

from __future__ import annotations

import logging
import socket

import uvicorn

from service import migrations
from service.api.app import create_app
from service.api.protocol import BoundedHttp
from service.context import open_context
from service.kit import telemetry
from service.kit.settings import Settings

_log = logging.getLogger(__name__)

_BACKLOG = 2048
"""How many connections wait to be taken, as uvicorn's own sockets let them."""


def run_api(settings: Settings, host: str, port: int, *, name: str | None = None, shared: bool = False) -> int:
    """Serve until SIGTERM or SIGINT, the address `shared` with other processes or not.

    Raises SettingsError where a setting or the database's schema is wrong, OSError where the address is taken.
    """
    telemetry.begin(settings, "api", name)
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
    if shared:
        listening = _shared_socket(host, port)
        _log.info("Listening on port %d of %s, which other processes may share", port, host)
        server.run([listening])
    else:
        server.run()
    context.db.close()
    return 0 if server.started else 1


def _shared_socket(host: str, port: int) -> socket.socket:
    """Listen beside others that do the same: the kernel gives each new connection to one of them."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family, backlog=_BACKLOG, reuse_port=True)
