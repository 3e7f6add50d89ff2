"""Tokens of chat completions, counted for the project's rate: an estimate first, what was used afterwards."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from service.chat.schemas import ChatCompletionRequest, Chunk
from service.context import Context
from service.keys.service import Principal
from service.kit import metrics
from service.limits.rates import RateBook, settle_tokens, take_tokens

_BYTES_A_TOKEN = 4


@dataclass(frozen=True)
class TokenMeter:
    """Counts for one caller."""

    context: Context
    principal: Principal
    book: RateBook

    async def reserve_tokens(self, body: ChatCompletionRequest) -> int:
        """Take the tokens that a request may use; return how many. Raises RateLimited."""
        longest = body.most_tokens or self.context.settings.engine_max_tokens
        question = body.model_dump_json(include={"messages", "tools"}, exclude_none=True).encode()
        tokens = len(question) // _BYTES_A_TOKEN + longest * (body.n or 1)
        # Reserved before the answer: many chats at once would otherwise pass a limit that each of them alone respects.
        await run_in_threadpool(take_tokens, self.context, self.principal, self.book, tokens)
        return tokens

    async def meter_chunks(self, chunks: AsyncGenerator[Chunk], reserved_tokens: int) -> AsyncGenerator[Chunk]:
        """Pass an answer on; at its end settle what it used: nothing if it never began."""
        used_tokens: int | None = 0
        try:
            async with aclosing(chunks) as open_chunks:
                async for chunk in open_chunks:
                    # The last chunk has the usage (`stream_options.include_usage`); until then what was used is not
                    # known.
                    used_tokens = chunk.usage.total_tokens if chunk.usage else None
                    if chunk.usage is not None:
                        metrics.CHAT_TOKENS.labels("prompt").inc(chunk.usage.prompt_tokens)
                        metrics.CHAT_TOKENS.labels("completion").inc(chunk.usage.completion_tokens)
                    yield chunk
        finally:
            # How many tokens an interrupted answer used is unknown: the estimate stands.
            await run_in_threadpool(
                self._settle_use, reserved_tokens, reserved_tokens if used_tokens is None else used_tokens
            )

    def _settle_use(self, reserved_tokens: int, used_tokens: int) -> None:
        settle_tokens(self.context, self.principal, self.book, taken=reserved_tokens, used=used_tokens)
