"""`/v1/models`: the bases that can be tuned and what came of earlier jobs."""

from __future__ import annotations

from burnish._pages import AsyncPage, Page
from burnish._request import Request, parser_of, path_segment
from burnish._transport import AsyncTransport, Transport
from burnish.resources.exports import AsyncExports, Exports
from burnish.schemas import Deleted, Model, PageData

_LIST = Request("GET", "/models", parser_of(PageData[Model]))


def _retrieve_model_request(model: str) -> Request[Model]:
    return Request("GET", f"/models/{path_segment(model)}", parser_of(Model))


def _delete_model_request(model: str) -> Request[Deleted]:
    return Request("DELETE", f"/models/{path_segment(model)}", parser_of(Deleted))


class Models:
    """`client.models`: bases and fine-tuned models."""

    def __init__(self, client: Transport) -> None:
        self._client = client
        self.exports = Exports(client)

    def list(self) -> Page[Model]:
        """List all models that the key may use."""
        return Page(self._client, _LIST)

    def retrieve(self, model: str) -> Model:
        """Return one model's facts."""
        return self._client.send(_retrieve_model_request(model))

    def delete(self, model: str) -> Deleted:
        """Delete the outcome of a job; bases stay."""
        return self._client.send(_delete_model_request(model))


class AsyncModels:
    """`client.models`, to be awaited."""

    def __init__(self, client: AsyncTransport) -> None:
        self._client = client
        self.exports = AsyncExports(client)

    async def list(self) -> AsyncPage[Model]:
        """List all models that the key may use."""
        return await AsyncPage[Model].fetch(self._client, _LIST)

    async def retrieve(self, model: str) -> Model:
        """Return one model's facts."""
        return await self._client.send(_retrieve_model_request(model))

    async def delete(self, model: str) -> Deleted:
        """Delete the outcome of a job; bases stay."""
        return await self._client.send(_delete_model_request(model))
