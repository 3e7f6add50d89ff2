"""Step: webhooks are delivered, on an event loop of the step's own thread."""

from __future__ import annotations

import asyncio

from service.context import Context
from service.webhooks.lanes import DeliveryPace
from service.webhooks.sender import WebhookSender
from service.webhooks.target import DeliveryTarget


class WebhookStep:
    """Starts the deliveries that are due, then lets those in flight run for `seconds`."""

    def __init__(
        self,
        context: Context,
        server_target: DeliveryTarget | None,
        *,
        seconds: float,
        pace: DeliveryPace | None = None,
    ) -> None:
        self._sender = WebhookSender(context, server_target, pace)
        self._seconds = seconds
        self._runner = asyncio.Runner()

    def __call__(self) -> None:
        """Run one slice. Raises Unavailable if the database does not answer."""
        self._runner.run(self._run_slice())

    def close(self) -> None:
        """Cancel deliveries in flight; call it in the thread that ran the slices."""
        self._runner.run(self._sender.close())
        self._runner.close()

    async def _run_slice(self) -> None:
        await self._sender.start_due_deliveries()
        await asyncio.sleep(self._seconds)
