"""uvicorn with an accept loop of its own: it bounds the open connections, and lives on when the process has no more
descriptors.

uvloop keeps the next connection waiting when no descriptor is free, and logs nothing.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Sequence

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.api.connections import OpenConnections, open_connections
from service.api.errors import refused_connection
from service.api.headers import raw_answer
from service.api.protocol import BoundedHttp
from service.kit import ids, metrics
from service.kit.descriptors import descriptor_limit
from service.kit.log import SparseLog
from service.kit.settings import Settings

_log = logging.getLogger(__name__)
_BACKLOG = 2048
"""How many connections wait to be taken, as uvicorn's own sockets let them."""
_AT_ONCE = 16
"""How many connections are taken before the loop turns to other work."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_SECONDS = 0.2


def open_listeners(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Listen on all addresses of a host, beside others that do the same if `shared`: the kernel gives each new
    connection to one of them. Raises OSError.
    """
    addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    refusal: OSError | None = None
    # getaddrinfo may list an address twice, and the second bind would fail.
    for family, _, _, _, address in dict.fromkeys(addresses):
        try:
            listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG, reuse_port=shared)  # pyright: ignore[reportArgumentType]
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                for listener_socket in sockets:
                    listener_socket.close()
                raise
            refusal = error  # `localhost` names an address of IPv6 on machines that have none
        else:
            sockets.append(listener)
    if not sockets:
        raise refusal or OSError(errno.EADDRNOTAVAIL, f"{host} is not an address of this machine")
    return sockets


class BoundedServer(uvicorn.Server):
    """Serves an application on sockets that already listen."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        config = uvicorn.Config(
            app,
            http=BoundedHttp,
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # `api/proxies.py` reads them, and trusts no proxy by default
            timeout_graceful_shutdown=5,
        )
        super().__init__(config)
        self.connections = open_connections(settings, descriptor_limit())
        self._acceptor: Acceptor | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, and take connections."""
        # With no sockets: uvicorn runs its start-up and leaves the accepting to `Acceptor`.
        await super().startup(sockets=[])

        def make_protocol(host: str) -> BoundedHttp:
            return BoundedHttp(
                self.config,
                self.server_state,
                self.lifespan.state,
                asyncio.get_running_loop(),
                admission=(self.connections, host),
            )

        self._acceptor = Acceptor(sockets or [], make_protocol, self.connections)
        self._acceptor.start()
        self.servers.append(self._acceptor)  # pyright: ignore[reportArgumentType] - uvicorn needs only these methods of a server

    async def on_tick(self, counter: int) -> bool:
        """Do what is due ten times a second."""
        if self._acceptor is not None:
            self._acceptor.flush_log()
        return await super().on_tick(counter)


class Acceptor:
    """Takes connections from listening sockets, as long as there are places for them."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        make_protocol: Callable[[str], BoundedHttp],
        connections: OpenConnections,
    ) -> None:
        self.sockets = tuple(sockets)
        self._make_protocol = make_protocol
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[None]] = set()
        self._closed = False
        self._refused = SparseLog(_log)
        self._exhausted = SparseLog(_log)

    def start(self) -> None:
        """Take connections from now on."""
        for listening in self.sockets:
            listening.setblocking(False)
            self._watch_socket(listening)

    def close(self) -> None:
        """Take no more connections."""
        self._closed = True
        for listening in self.sockets:
            self._loop.remove_reader(listening)
            listening.close()

    async def wait_closed(self) -> None:
        """Wait for connections that are being taken."""
        await asyncio.gather(*self._starting, return_exceptions=True)

    def flush_log(self) -> None:
        """Log what was counted."""
        self._refused.flush()
        self._exhausted.flush()

    def _watch_socket(self, listening: socket.socket) -> None:
        if not self._closed:
            self._loop.add_reader(listening, self._accept_connections, listening)

    def _accept_connections(self, listening: socket.socket) -> None:
        # Bounded, so that a flood of connections leaves the loop time for requests.
        for _ in range(_AT_ONCE):
            try:
                connection, address = listening.accept()
            # ECONNABORTED among them: the client was gone before accept(2).
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._pause_accepting(listening, error)
                return
            self._take_connection(connection, str(address[0]))

    def _pause_accepting(self, listening: socket.socket, error: OSError) -> None:
        """Let the kernel hold new connections for a moment, and end idle ones."""
        self._exhausted.log_sparsely(
            "no connection can be taken at the moment: %s; connections that wait for a request are ended",
            error.strerror,
        )
        # Idle connections hold the descriptors that are missing.
        self._connections.close_idle(_AT_ONCE)
        # The socket stays readable while accept fails: without a pause the loop would spin.
        self._loop.remove_reader(listening)
        self._loop.call_later(_PAUSE_SECONDS, self._watch_socket, listening)

    def _take_connection(self, connection: socket.socket, host: str) -> None:
        connection.setblocking(False)
        if not self._connections.take_place(host):
            self._refuse_connection(connection)
            return
        task = self._loop.create_task(self._open_connection(connection, host))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _open_connection(self, connection: socket.socket, host: str) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self._make_protocol(host), connection)
        except OSError as error:
            self._connections.give_back(host)
            connection.close()
            _log.info("a connection ended before it was open: %s", error)

    def _refuse_connection(self, connection: socket.socket) -> None:
        metrics.CONNECTIONS_REFUSED.inc()
        self._refused.log_sparsely(
            "a connection was refused: of the %d places of this process (BURNISH_MAX_CONNECTIONS, or its limit of open "
            "files), or of the %d of one address, none is free",
            self._connections.most,
            self._connections.most_per_address,
        )
        answer = refused_connection(self._connections.most)
        with connection:
            try:
                connection.send(raw_answer(STATUS_LINE[503], answer, ids.new_request_id()))
                # A close with unread bytes sends RST, and the client might never see the 503.
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                return
