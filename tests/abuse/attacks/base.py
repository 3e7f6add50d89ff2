"""What every attack has: a target, requests that are counted and judged, and a bounded length."""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from tests.abuse.scale import PATIENCE
from tests.fixtures.plain_http import BadReply, Connections, Reply, RequestMaker

ROW = '{"messages":[{"role":"user","content":"你好"},{"role":"assistant","content":"Hello"}]}\n'.encode()
_SHOWN = 5
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Target:
    """What is attacked: the API's root, and two keys of the hostile tenant."""

    url: str
    key: str
    reader_key: str
    """A key with the scope `read` alone."""
    seconds: float


@dataclass
class Answers:
    """What the service answered to an attack."""

    statuses: dict[str, int] = field(default_factory=dict[str, int])
    malformed: list[str] = field(default_factory=list[str])
    """Errors that are not in the API's form: the first few."""
    broken: int = 0
    """Connections that ended without an answer."""
    hung: int = 0
    """Requests that had no answer within the suite's patience."""
    abandoned: int = 0
    """Requests whose caller hung up."""
    slowest: float = 0.0
    """Seconds."""
    notes: list[str] = field(default_factory=list[str])

    def note(self, reply: Reply) -> None:
        """Count one answer, and look at its form if it is an error."""
        status = str(reply.status)
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if reply.status >= 400 and len(self.malformed) < _SHOWN and not is_error_object(reply):
            self.malformed.append(f"{reply.status} {reply.headers.get('content-type')}: {reply.body[:200]!r}")

    @property
    def requests(self) -> int:
        """How many requests were made."""
        return sum(self.statuses.values()) + self.broken + self.hung + self.abandoned


def is_error_object(reply: Reply) -> bool:
    """Whether an answer is an error in OpenAI's shape."""
    try:
        error = json.loads(reply.body)["error"]
        return isinstance(error["message"], str) and bool(error["message"]) and isinstance(error["type"], str)
    except (ValueError, TypeError, KeyError):
        return False


class Attack(ABC):
    """One attack. The attacker's process calls `prepare`, then `run` with an event that ends it, then `clean`."""

    name: ClassVar[str]
    description: ClassVar[str]
    by: ClassVar[Literal["stranger", "tenant"]] = "tenant"
    breaks: ClassVar[bool] = False
    """Whether the service may end its connections without an answer."""
    hangs_up: ClassVar[bool] = False
    """Whether the caller leaves requests that are under way at the end: an answer may take longer than the attack."""
    most_audit_rows: ClassVar[float | None] = None
    """The most rows of the audit log, a second, that the attack may leave."""
    short: ClassVar[bool] = False
    """Whether `make test` runs it too."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.answers = Answers()
        self.connections = Connections(target.url)
        self.maker = RequestMaker.for_url(target.url, target.key if self.by == "tenant" else None)

    async def prepare(self) -> None:  # noqa: B027 - many attacks need nothing
        """Make what the attack needs, before it is measured."""

    @abstractmethod
    async def run(self, stop: asyncio.Event) -> None:
        """Attack until `stop` is set."""

    async def clean(self) -> None:
        """Take back what would go on after the attack: jobs, and receivers of webhooks."""
        if self.by == "tenant":
            await self._end_jobs()
            await self._delete_endpoints()

    async def ask(self, data: bytes) -> Reply | None:
        """Send a request of the attack and count its answer; None if none came."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                reply = await self.connections.send(data)
        except TimeoutError:
            self.answers.hung += 1
            return None
        except (OSError, EOFError, BadReply):
            self.answers.broken += 1
            return None
        except asyncio.CancelledError:
            self.answers.abandoned += 1
            raise
        self.answers.slowest = max(self.answers.slowest, time.monotonic() - began)
        self.answers.note(reply)
        return reply

    async def repeat(self, stop: asyncio.Event, make: Callable[[int], bytes], *, at_once: int) -> None:
        """Send what `make` gives for 0, 1, 2 … until `stop`, so many at once, each after the answer to the last."""
        numbers = iter(range(1 << 30))

        async def caller() -> None:
            while not stop.is_set():
                if await self.ask(make(next(numbers))) is None:
                    await asyncio.sleep(0.05)

        await self.together(stop, [caller() for _ in range(at_once)])

    async def together(self, stop: asyncio.Event, work: list[Coroutine[Any, Any, None]]) -> None:
        """Run work side by side; what is left of it after `stop` is dropped if the attack's caller hangs up."""
        tasks = [asyncio.create_task(one) for one in work]
        if self.hangs_up:
            await stop.wait()
            for task in tasks:
                task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def order(self, method: str, path: str, body: Any = None, *, upload: bytes | None = None) -> dict[str, Any]:
        """Send a request that is no attack itself, again while the service is busy. Raises AssertionError."""
        data = b"" if body is None else json.dumps(body).encode()
        deadline = time.monotonic() + 2 * PATIENCE
        while True:
            request = self.maker.request(method, path, data) if upload is None else self.maker.upload(upload)
            try:
                async with asyncio.timeout(PATIENCE):
                    reply = await self.connections.send(request)
            except (OSError, EOFError, BadReply) as error:
                said = repr(error)
            else:
                said = f"{reply.status} {reply.body[:500]!r}"
                if reply.status == 200:
                    return json.loads(reply.body)
                assert reply.status in (409, 429, 503), f"{method} {path}: {said}"
            assert time.monotonic() < deadline, f"{method} {path}: {said}"
            await asyncio.sleep(_POLL_SECONDS)

    async def upload(self, data: bytes = ROW * 20) -> str:
        """Upload a dataset that is in order and return its id."""
        return (await self.order("POST", "/v1/files", upload=data))["id"]

    async def create_job(self, file_id: str, *, epochs: int = 1, **members: Any) -> str:
        """Create a small job and return its id."""
        body = job_body(file_id, epochs=epochs) | members
        return (await self.order("POST", "/v1/fine_tuning/jobs", body))["id"]

    async def _end_jobs(self) -> None:
        for job in (await self.order("GET", "/v1/fine_tuning/jobs?limit=100"))["data"]:
            if job["status"] in ("validating_files", "queued", "running"):
                await self.connections.send(self.maker.request("POST", f"/v1/fine_tuning/jobs/{job['id']}/cancel"))

    async def _delete_endpoints(self) -> None:
        for endpoint in (await self.order("GET", "/v1/webhook_endpoints?limit=100"))["data"]:
            await self.order("DELETE", f"/v1/webhook_endpoints/{endpoint['id']}")


def job_body(file_id: str, *, epochs: int = 1) -> dict[str, Any]:
    """Return the body of a small job's creation."""
    parameters = {"n_epochs": epochs, "batch_size": 4, "lora": {"rank": 2, "alpha": 4}}
    return {
        "model": "tiny",
        "training_file": file_id,
        "method": {"type": "supervised", "supervised": {"hyperparameters": parameters}},
    }
