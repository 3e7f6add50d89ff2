"""Rates on Redis or Valkey: one bucket of tokens a key, the same for all processes. Without the server all may pass."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, cast

from redis.exceptions import RedisError

from service.queue.base import BucketState
from service.queue.rq import address_of, connect_redis

_log = logging.getLogger(__name__)
_PATIENCE = 0.25
"""Seconds that a request may wait for the server."""
_PAUSE = 5.0
"""Seconds without another try after one that failed."""
_PREFIX = "burnish:rate:"

# A token bucket: it holds `limit`, fills in a minute, and `cost` is taken out at once or not at all.
# With `force` it may fall below zero; a negative cost puts back.
_TAKE = """
-- The server's clock: those of the API's processes may differ.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000
local limit, cost, force = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local rate = limit / 60000
local kept = redis.call('HMGET', KEYS[1], 'level', 'at')
local level = limit
if kept[1] then level = math.min(limit, tonumber(kept[1]) + math.max(now - tonumber(kept[2]), 0) * rate) end
local allowed, wait = 0, 0
if force or level >= cost then
  level = math.min(limit, level - cost)
  allowed = 1
else
  wait = (cost - level) / rate
end
redis.call('HSET', KEYS[1], 'level', string.format('%.9f', level), 'at', string.format('%.3f', now))
local full = math.ceil((limit - level) / rate)
redis.call('PEXPIRE', KEYS[1], full + 1000)
return {allowed, math.max(math.floor(level), 0), full, math.ceil(wait)}
"""


class RedisRates:
    """A `RateLimiter`. It connects with the first call. Raises SettingsError if the URL is none."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._lock = threading.Lock()
        # No retries: the limiter may cost a request a quarter of a second, and then lets it pass.
        client: Any = connect_redis(redis_url, retries=0, timeout=_PATIENCE)
        self._script: Any = client.register_script(_TAKE)
        self._away_until = 0.0
        self._outage_logged = False

    def take(self, key: str, *, limit: int, cost: int = 1, force: bool = False) -> BucketState | None:
        """Take from a bucket; see `RateLimiter.take`."""
        # During an outage only one request in five seconds pays the timeout; all others pass at once.
        if time.monotonic() < self._away_until:
            return None
        try:
            answer = self._script(keys=[_PREFIX + key], args=[limit, cost, int(force)])
        except RedisError as error:
            self._note_outage(error)
            return None
        self._note_recovery()
        is_allowed, remaining, full, wait = cast("list[int]", answer)
        return BucketState(bool(is_allowed), remaining, full / 1000, wait / 1000)

    def _note_outage(self, error: RedisError) -> None:
        with self._lock:
            self._away_until = time.monotonic() + _PAUSE
            is_first, self._outage_logged = not self._outage_logged, True
        if is_first:
            _log.warning(
                "The server at %s does not answer (%s): until it does, no rate limit holds",
                address_of(self._url),
                type(error).__name__,
            )

    def _note_recovery(self) -> None:
        if self._outage_logged:
            with self._lock:
                is_first, self._outage_logged = self._outage_logged, False
            if is_first:
                _log.info("The server at %s answers again: rate limits hold", address_of(self._url))
