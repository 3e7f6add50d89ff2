"""Random operations of users, workers and the controller against the real service code, on a real database.

A trigger writes down each change of a job's state, so that no illegal one can hide inside a transaction. Every run ends
by letting the service finish what is left: a job that cannot be brought to an end is lost.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select, text, update

from service.api.app import create_app
from service.context import Context
from service.controller.dispatch import dispatch_jobs, refill_queue
from service.controller.leases import end_expired_leases
from service.controller.validation import validate_jobs
from service.controller.waiting import release_waiting
from service.jobs import claims, lifecycle, repository, results_repository
from service.jobs.errors import StaleLease
from service.jobs.lifecycle import JobFailureReason, PublishedFile
from service.keys.service import create_key
from service.kit.db import db_now
from service.kit.outbox import OutboxRow, Topic
from service.queue.memory import MemoryJobQueue
from service.tables.jobs import JobArtifactRow, JobRow, JobState
from service.tables.models import FineTunedModelRow
from service.workers.capacity import Capacity
from tests.fixtures.service import GOOD_JSONL, make_context

FULL = os.environ.get("BURNISH_FAULTS") == "full"
RUNS, STEPS = (1000, 40) if FULL else (60, 40)
_LEASE_SECONDS = 86_400
"""Longer than any walk takes on a busy machine: a lease ends when the walk says so, and not by the clock."""
LEGAL = {
    "validating": {"queued", "paused", "failed", "cancelled"},
    "queued": {"running", "paused", "failed", "cancelled"},
    "running": {"queued", "paused", "succeeded", "failed", "cancelled"},
    "paused": {"queued", "cancelled"},
}
"""As the documents have it, written out once more so that a slip in the code's own table is seen."""
ENDED = {"succeeded", "failed", "cancelled"}
FILE = PublishedFile("report.json", "report.json", "application/json", "jobs/x/report.json", 2, "0" * 64)
BOOM = JobFailureReason("trainer_failed", "the trainer ended with 1")
TRIGGER = (
    "CREATE TABLE state_log (seq INTEGER PRIMARY KEY, job TEXT, old TEXT, new TEXT, old_token INT, new_token INT)",
    "CREATE TRIGGER log_state AFTER UPDATE OF state, lease_token ON jobs BEGIN INSERT INTO state_log "
    "(job, old, new, old_token, new_token) "
    "VALUES (NEW.id, OLD.state, NEW.state, OLD.lease_token, NEW.lease_token); END",
)


@dataclass
class World:
    """One service for all runs; each run has jobs of its own."""

    context: Context
    client: httpx.Client
    good: str = ""
    bad: str = ""
    log_seq: int = 0
    tally: Counter[str] = field(default_factory=Counter)


@contextmanager
def a_world() -> Generator[World]:
    with tempfile.TemporaryDirectory() as folder:
        context = make_context(Path(folder), max_failures=3, retry_seconds=0)
        with context.db.write() as session:
            _, token = create_key(session, context.hmac_key, project="p", name="k")
            for statement in TRIGGER:
                session.execute(text(statement))
        with TestClient(create_app(context), base_url="http://test/v1") as client:
            client.headers["Authorization"] = f"Bearer {token}"
            world = World(context, client)
            world.good, world.bad = (
                client.post("/files", files={"file": ("a.jsonl", rows)}, data={"purpose": "fine-tune"}).json()["id"]
                for rows in (GOOD_JSONL, GOOD_JSONL + b'{"messages": "\xe4\xb8\x8d"}\n')
            )
            yield world
        context.db.close()


class Jobs(RuleBasedStateMachine):
    """The operations. Which job and which token they meet is drawn; stale tokens are drawn as often as fresh ones."""

    world: World

    @initialize()
    def begin(self) -> None:
        with self.world.context.db.write() as session:  # what runs before this one asked for
            session.execute(text("DELETE FROM outbox"))
        self.jobs: list[str] = []
        self.claims: list[tuple[str, int]] = []
        """Every lease that was ever given, in this order."""
        self.queue = MemoryJobQueue()
        self.last: dict[str, str] = {}
        for _ in range(2):  # so that there is something to do from the start
            body = {"model": "tiny", "training_file": self.world.good}
            self.jobs.append(self.world.client.post("/fine_tuning/jobs", json=body).json()["id"])
        self.claim(checked=True)

    # Users

    @rule(bad=st.booleans(), data=st.data())
    def create(self, bad: bool, data: st.DataObject) -> None:
        parent = data.draw(st.sampled_from([None, None, *self.jobs]))
        body: dict[str, Any] = {
            "model": parent or "tiny",
            "training_file": self.world.bad if bad else self.world.good,
            "priority": data.draw(st.sampled_from(["low", "normal", "high"])),
        }
        answer = self.world.client.post("/fine_tuning/jobs", json=body)
        if parent is not None and self.row(parent).state in ("failed", "cancelled"):
            assert 400 <= answer.status_code < 500, answer.text
            return
        assert answer.status_code == 200, answer.text
        self.jobs.append(answer.json()["id"])

    @precondition(lambda self: self.jobs)
    @rule(verb=st.sampled_from(["pause", "resume", "cancel", "pause", "resume"]), data=st.data())
    def ask(self, verb: str, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(self.jobs))
        before = self.row(job_id)
        answer = self.world.client.post(f"/fine_tuning/jobs/{job_id}/{verb}")
        after = self.row(job_id)
        self.world.tally[f"{verb} {answer.status_code}"] += 1
        if before.state in ENDED:
            assert (answer.status_code, after.state) == (409, before.state), answer.text
        elif verb == "cancel":
            assert (answer.status_code, after.state) == (200, "cancelled")
        elif verb == "pause":
            assert answer.status_code == 200
            assert after.state == "paused" or after.pause_requested
        else:
            wanted = before.state == "paused" or before.pause_requested
            assert answer.status_code == (200 if wanted else 409), answer.text
            assert after.state != "paused"
            assert not after.pause_requested

    # The controller

    @rule(step=st.sampled_from([validate_jobs, release_waiting, dispatch_jobs, refill_queue, end_expired_leases]))
    def control(self, step: Callable[[Context, MemoryJobQueue], int]) -> None:
        step(self.world.context, self.queue)

    @rule()
    def lose_the_queue(self) -> None:
        self.queue = MemoryJobQueue()

    # Workers

    @rule(checked=st.booleans())
    def claim(self, checked: bool) -> None:
        if checked:
            validate_jobs(self.world.context, self.queue)
        with self.world.context.db.write() as session:
            job = claims.start_next(session, capacity=Capacity(), owner="w", lease_seconds=_LEASE_SECONDS)
        if job is not None:
            self.claims.append((job.id, job.lease_token))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def fall_silent(self, data: st.DataObject) -> None:
        job_id, token = data.draw(st.sampled_from(self.claims))
        with self.world.context.db.write() as session:
            stale = (JobRow.id == job_id) & (JobRow.lease_token == token) & (JobRow.state == JobState.RUNNING)
            session.execute(update(JobRow).where(stale).values(lease_expires_at=db_now() - 1))

    @precondition(lambda self: self.claims)
    @rule(
        what=st.sampled_from(
            ["renew", "checkpoint", "give_back", "stand_still", "crash", "fail", "succeed", "succeed"]
        ),
        data=st.data(),
    )
    def work(self, what: str, data: st.DataObject) -> None:
        job_id, token = data.draw(st.sampled_from(self.claims))
        before = self.picture(job_id)
        row = self.row(job_id)
        holds = row.state == "running" and row.lease_token == token
        did = self.attempt(what, job_id, token)
        assert did == holds, f"{what} with token {token} of {row.lease_token} in {row.state}: {did}"
        self.world.tally[f"{what} {'done' if did else 'refused'}"] += 1
        if not holds:
            assert self.picture(job_id) == before, "a stale write left something"
        elif what == "succeed":
            assert self.row(job_id).state == "succeeded"

    def attempt(self, what: str, job_id: str, token: int) -> bool:
        """Write as a worker does that holds (or believes to hold) a lease. False where it is refused."""
        try:
            with self.world.context.db.write() as session:
                job = repository.by_id(session, job_id)
                assert job is not None
                if what in ("renew", "checkpoint"):
                    if not repository.renew_lease(session, job_id, token, lease_seconds=_LEASE_SECONDS):
                        raise StaleLease(job_id)
                    if what == "checkpoint":
                        step = {"step": job.lease_token, "metrics": {}, "manifest_sha256": "0" * 64}
                        results_repository.add_checkpoint(session, job_id, blob_prefix=f"jobs/{job_id}/{token}", **step)
                elif what == "give_back":
                    lifecycle.requeue_job(session, job_id, token, reason="the worker is stopping")
                elif what == "stand_still":
                    lifecycle.complete_pause(session, job_id, token)
                elif what == "crash":
                    lifecycle.retry_or_fail_job(session, job, token=token, error=BOOM, max_failures=3)
                elif what == "fail":
                    lifecycle.fail_job(session, job_id, BOOM, token=token)
                else:
                    self.publish(session, job, token)
        except StaleLease:
            return False
        return True

    def publish(self, session: Any, job: JobRow, token: int) -> None:
        """Publish a result in the transaction."""
        lifecycle.complete_job(
            session,
            job,
            token=token,
            trained_tokens=5,
            kind="adapter",
            manifest_sha256="0" * 64,
            blob_prefix=f"jobs/{job.id}/attempt-{token}",
            result_csv=FILE,
            artifacts=[FILE],
        )

    # What must hold

    def row(self, job_id: str) -> JobRow:
        with self.world.context.db.read() as session:
            job = repository.by_id(session, job_id)
        assert job is not None
        return job

    def picture(self, job_id: str) -> tuple[Any, ...]:
        """Return all that a write about a job could change."""
        with self.world.context.db.read() as session:
            job = session.execute(text("SELECT * FROM jobs WHERE id = :id"), {"id": job_id}).one()
            counted = (
                session.scalar(text(f"SELECT count(*) FROM {table} WHERE job_id = :id"), {"id": job_id})
                for table in ("job_events", "job_checkpoints", "job_artifacts", "fine_tuned_models")
            )
            return (*job, *counted, session.scalar(text("SELECT count(*) FROM outbox")))

    @invariant()
    def only_legal_changes(self) -> None:
        if not hasattr(self, "jobs"):
            return
        with self.world.context.db.read() as session:
            query = text("SELECT seq, job, old, new, old_token, new_token FROM state_log WHERE seq > :seq ORDER BY seq")
            changes = session.execute(query, {"seq": self.world.log_seq}).all()
        for seq, job_id, old, new, old_token, new_token in changes:
            self.world.log_seq = seq
            assert old == self.last.get(job_id, "validating"), "a change that nobody saw"
            assert new == old or new in LEGAL.get(old, set()), f"{old} → {new}"
            claimed = new_token - old_token
            assert claimed == (1 if new == "running" and old != "running" else 0), "only a claim raises the token"
            self.last[job_id] = new

    def ends_once(self, job_id: str) -> None:
        """One end, told once, and a model exactly where the job succeeded."""
        row = self.row(job_id)
        assert row.state in ENDED, f"{job_id} is lost in {row.state}"
        assert row.lease_expires_at is None
        assert not row.waits_for or row.state != "succeeded"
        with self.world.context.db.read() as session:
            about_it = OutboxRow.payload["object_id"].as_string() == job_id
            told = session.scalars(
                select(OutboxRow.payload["type"].as_string()).where(OutboxRow.topic == Topic.TELL_WEBHOOKS, about_it)
            ).all()
            models = session.scalars(select(FineTunedModelRow).where(FineTunedModelRow.job_id == job_id)).all()
            artifacts = session.scalars(select(JobArtifactRow).where(JobArtifactRow.job_id == job_id)).all()
        assert told == [f"fine_tuning.job.{row.state}"]
        succeeded = row.state == "succeeded"
        assert (len(models), len(artifacts)) == ((1, 1) if succeeded else (0, 0))
        if succeeded:
            assert models[0].blob_prefix.endswith(f"attempt-{row.lease_token}"), "another attempt's files"
            assert row.error is None

    def teardown(self) -> None:
        """Let the service bring every job to its end, and look at each."""
        if not hasattr(self, "jobs"):
            return
        for job_id in self.jobs:
            if self.row(job_id).state == "paused" or self.row(job_id).pause_requested:
                assert self.world.client.post(f"/fine_tuning/jobs/{job_id}/resume").status_code == 200
        for _ in range(4 * len(self.jobs) + 4):
            if all(self.row(job_id).state in ENDED for job_id in self.jobs):
                break
            with self.world.context.db.write() as session:  # every worker that runs falls silent, every pause is over
                session.execute(update(JobRow).values(lease_expires_at=db_now() - 1).where(JobRow.state == "running"))
            for step in (end_expired_leases, validate_jobs, release_waiting, dispatch_jobs, refill_queue):
                step(self.world.context, self.queue)
            while self.queue.pop() is not None:
                self.claim_and_succeed()
        for job_id in self.jobs:
            self.ends_once(job_id)
        self.only_legal_changes()

    def claim_and_succeed(self) -> None:
        """Do what a worker does that a queue's id wakes."""
        with self.world.context.db.write() as session:
            job = claims.start_next(session, capacity=Capacity(), owner="w", lease_seconds=_LEASE_SECONDS)
        if job is not None:
            assert self.attempt("succeed", job.id, job.lease_token)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_no_sequence_of_operations_makes_an_illegal_change_or_loses_a_job() -> None:
    with a_world() as world:
        Jobs.world = world
        checked = settings(
            max_examples=RUNS,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize=not FULL,  # the short form tries the same each time; the full one has luck
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # to make a failure smaller takes longer than to read it
        )
        case: Any = Jobs.TestCase
        case.settings = checked
        case("runTest").runTest()
        met = world.tally
        for kind in ("renew", "checkpoint", "give_back", "stand_still", "crash", "fail", "succeed"):
            assert met[f"{kind} done"] > RUNS / 100, f"{kind} was hardly tried: {met}"
            assert met[f"{kind} refused"] > RUNS / 100, f"{kind} was hardly tried with a stale token: {met}"
