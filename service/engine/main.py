"""The engine process: uvicorn on a unix socket or a port."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from service.context import open_context
from service.engine.app import create_engine_app
from service.engine.backend import Backend
from service.engine.inference import InferenceServer
from service.engine.local import LocalEngine
from service.engine.speaker import CHAT_COMMAND, Speaker
from service.engine.weights import EngineWeights
from service.kit import telemetry
from service.kit.descriptors import raise_descriptor_limit
from service.kit.settings import Settings
from service.staging.bases import PREPARE_COMMAND


def run_engine(
    settings: Settings,
    *,
    uds: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    chat_command: Sequence[str] = CHAT_COMMAND,
    prepare_command: Sequence[str] = PREPARE_COMMAND,
) -> int:
    """Serve until SIGTERM or SIGINT. Raises SettingsError if a setting is wrong."""
    raise_descriptor_limit()
    telemetry.set_up_telemetry(settings, "engine")
    context = open_context(settings)
    stop = threading.Event()
    folder = settings.data / "engine"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    weights = EngineWeights(context, stop, prepare_command=prepare_command)

    def open_backend() -> Backend:
        if settings.inference_url is not None:
            return InferenceServer(settings, weights)
        return LocalEngine(settings, weights, Speaker(settings, folder=folder, command=chat_command))

    app = create_engine_app(context.hmac_key, settings, open_backend)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        uds=None if uds is None else str(uds),
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    server = _Server(config, stop)
    server.run()
    context.db.close()
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """Signals to threads that the process is to end."""

    def __init__(self, config: uvicorn.Config, stop: threading.Event) -> None:
        super().__init__(config)
        self._stop = stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, which lets everybody write to its unix socket; let its owner alone."""
        await super().startup(sockets)
        if self.config.uds is not None:
            os.chmod(self.config.uds, 0o600)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop as uvicorn does, and let threads know first."""
        self._stop.set()
        await super().shutdown(sockets)
