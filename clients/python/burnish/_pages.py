"""Lists that come in pages: iterate over a page and the following ones are fetched as they are needed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from burnish._request import Request
from burnish._transport import AsyncTransport, Transport
from burnish.schemas import PageData


class Identified(Protocol):
    """Anything with an id that a list can continue after."""

    @property
    def id(self) -> str:
        """The id that the next page starts after."""
        ...


T = TypeVar("T", bound=Identified)


class _Listing(Generic[T]):
    def __init__(self, page: PageData[T], request: Request[PageData[T]]) -> None:
        self.data = page.data
        self.has_more = page.has_more
        self._request = request

    def _next_request(self) -> Request[PageData[T]] | None:
        if not (self.has_more and self.data):
            return None
        return replace(self._request, params={**self._request.params, "after": self.data[-1].id})


class Page(_Listing[T]):
    """One page (`data`, `has_more`). Iterating gives its items and those of all pages after it."""

    def __init__(self, client: Transport, request: Request[PageData[T]]) -> None:
        super().__init__(client.send(request), request)
        self._client = client

    def next_page(self) -> Page[T] | None:
        """Fetch the page after this one; None after the last."""
        request = self._next_request()
        return None if request is None else Page(self._client, request)

    def __iter__(self) -> Iterator[T]:
        page: Page[T] | None = self
        while page is not None:
            yield from page.data
            page = page.next_page()


class AsyncPage(_Listing[T]):
    """Like `Page`, by `async for`."""

    def __init__(self, client: AsyncTransport, page: PageData[T], request: Request[PageData[T]]) -> None:
        super().__init__(page, request)
        self._client = client

    @classmethod
    async def fetch(cls, client: AsyncTransport, request: Request[PageData[T]]) -> AsyncPage[T]:
        """Fetch the page that a request describes."""
        return cls(client, await client.send(request), request)

    async def next_page(self) -> AsyncPage[T] | None:
        """Fetch the page after this one; None after the last."""
        request = self._next_request()
        return None if request is None else await self.fetch(self._client, request)

    async def __aiter__(self) -> AsyncIterator[T]:
        page: AsyncPage[T] | None = self
        while page is not None:
            for item in page.data:
                yield item
            page = await page.next_page()
