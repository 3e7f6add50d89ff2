"""Endpoints of two projects on both databases, and what a test asks of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from service.context import Context, open_context
from service.jobs import lifecycle
from service.keys.service import Principal
from service.kit.db import db_now
from service.kit.outbox import OutboxRow
from service.kit.settings import Settings
from service.tables.jobs import JobRow, JobState
from service.tables.keys import ProjectRow
from service.tables.webhooks import WebhookAttemptRow, WebhookEndpointRow, WebhookEventRow
from service.webhooks import repository, service
from service.webhooks.lanes import DeliveryPace
from service.webhooks.message import EVENT_TYPES
from service.webhooks.schemas import EndpointCreate, EndpointUpdate, Replay
from service.webhooks.sender import WebhookSender
from service.webhooks.service import NewEndpoint
from service.webhooks.target import DeliveryTarget
from service.webhooks.vault import Vault
from tests.fixtures.postgres import new_database
from tests.fixtures.service import migrate
from tests.service.controller.conftest import MakeJob

PRINCIPAL, OTHER = Principal("proj_test", "key_a"), Principal("proj_other", "key_b")
CANCELLED = "fine_tuning.job.cancelled"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.integration)])
def context(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Context]:
    """A context whose schema comes from the migrations; loopback is allowed."""
    with new_database() if request.param == "postgres" else nullcontext() as url:
        settings = Settings(
            data=tmp_path, database_url=url, secret_key="k" * 32, webhook_allowed_networks="127.0.0.0/8, hooks.internal"
        )
        migrate(settings)
        context = open_context(settings)
        with context.db.write() as session:
            session.add_all(ProjectRow(id=owner.project_id, name=owner.project_id) for owner in (PRINCIPAL, OTHER))
        yield context
        context.db.close()


EndJob = Callable[..., str]


@pytest.fixture
def end_job(context: Context, make_job: MakeJob) -> EndJob:
    """Cancel a job of a project; return its id."""

    def end(owner: Principal = PRINCIPAL) -> str:
        job_id = make_job(state=JobState.QUEUED)
        with context.db.write() as session:
            session.execute(update(JobRow).where(JobRow.id == job_id).values(project_id=owner.project_id))
            assert lifecycle.cancel_job(session, job_id)
        return job_id

    return end


def make(context: Context, url: str, owner: Principal = PRINCIPAL, types: tuple[str, ...] = EVENT_TYPES) -> NewEndpoint:
    with context.db.write() as session:
        body = EndpointCreate(name="钩子", url=url, event_types=list(types))
        return service.add_endpoint(session, owner, Vault(context.hmac_key), body)


def send(context: Context, configured: DeliveryTarget | None = None, pace: DeliveryPace | None = None) -> int:
    """Deliver once what is due, as one pass of the controller does."""

    async def run() -> int:
        sender = WebhookSender(context, configured, pace)
        try:
            count = await sender.start_due_deliveries()
            await sender.wait_for_deliveries()
            return count
        finally:
            await sender.close()

    return asyncio.run(run())


def change(context: Context, made: NewEndpoint, **body: Any) -> WebhookEndpointRow:
    with context.db.write() as session:
        return service.change_endpoint(session, PRINCIPAL, made.endpoint.id, EndpointUpdate(**body))


def replay(context: Context, made: NewEndpoint, owner: Principal = PRINCIPAL, **body: Any) -> list[str]:
    with context.db.write() as session:
        return service.replay_events(session, owner, made.endpoint.id, Replay(**body))


def row_of(context: Context, made: NewEndpoint) -> WebhookEndpointRow:
    with context.db.read() as session:
        found = repository.by_id(session, made.endpoint.id)
    assert found is not None
    return found


def log_of(context: Context, made: NewEndpoint) -> list[WebhookAttemptRow]:
    """The endpoint's tries, oldest first."""
    with context.db.read() as session:
        rows, _ = repository.page_of_attempts(session, made.endpoint.id, after=None, limit=1000, order="asc")
    return list(rows)


def pending(context: Context, made: NewEndpoint) -> list[OutboxRow]:
    with context.db.read() as session:
        return list(repository.pending_deliveries(session, made.endpoint.id))


def events(context: Context) -> list[WebhookEventRow]:
    with context.db.read() as session:
        return list(session.scalars(select(WebhookEventRow).order_by(WebhookEventRow.seq)))


def set_endpoint(context: Context, made: NewEndpoint, **values: Any) -> None:
    with context.db.write() as session:
        session.execute(update(WebhookEndpointRow).where(WebhookEndpointRow.id == made.endpoint.id).values(**values))


def make_due(context: Context) -> None:
    with context.db.write() as session:
        session.execute(update(OutboxRow).values(due_at=db_now() - 1))


def opens(secret: str, request: Any) -> bool:
    try:
        Webhook(secret).verify(request.body, request.headers)
    except WebhookVerificationError:
        return False
    return True
