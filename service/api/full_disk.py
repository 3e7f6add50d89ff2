"""Requests on a full disk: what frees room is served with the room that was kept for it, and nothing else gets it."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import service_error
from service.audit.actions import action_of
from service.kit.call import CALL, ApiCall
from service.kit.errors import NoSpace
from service.kit.reserve import DiskReserve

_UPLOADS = re.compile(r"/v1/files|/v1/uploads/[^/]+/parts")


class DiskIsFull(NoSpace):
    """The disk is full, and what is left is kept for deleting."""

    def __init__(self) -> None:
        super().__init__("The disk of the service is full: nothing was kept. Delete something, then try again.")


def require_disk(reserve: DiskReserve, call: ApiCall) -> None:
    """Raise DiskIsFull if a call adds to a disk on which only deleting is possible."""
    if action_of(call) is not None and not _frees_room(call.method, call.route) and reserve.is_used_up():
        raise DiskIsFull


def _frees_room(method: str, path: str) -> bool:
    return method == "DELETE" or (method == "POST" and path.endswith("/cancel"))


class FullDisk:
    """Serves what the full disk refused, and what would free some of it, once more after giving the reserve back.

    Until there is room again, uploads are refused before a byte of them is read: they would use up the reserve.
    """

    def __init__(self, app: ASGIApp, reserve: DiskReserve) -> None:
        self._app = app
        self._reserve = reserve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _frees_room(scope["method"], scope["path"]):
            await self._serve_twice(scope, receive, send)
        elif scope["method"] == "POST" and _UPLOADS.fullmatch(scope["path"]) and self._reserve.is_used_up():
            await service_error(DiskIsFull())(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve_twice(self, scope: Scope, receive: Receive, send: Send) -> None:
        disk_was_full = False

        async def withhold_refusal(message: Message) -> None:
            nonlocal disk_was_full
            disk_was_full = disk_was_full or (
                message["type"] == "http.response.start" and message["status"] == NoSpace.status
            )
            # The refusal is withheld, since an answer can be sent only once.
            if not disk_was_full:
                await send(message)

        again = dict(scope)  # routing writes into it; such requests have no body, so that `receive` is as it was
        await self._app(scope, receive, withhold_refusal)
        if disk_was_full:
            self._reserve.release()
            if (call := CALL.get()) is not None:
                call.recorded = False  # that was rolled back
            await self._app(again, receive, send)
