"""What must hold after any fault: nothing is lost, nothing is there twice, nobody who was too late has written."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

from sqlalchemy import select

from service.controller.garbage import AttemptSweeper
from service.jobs.states import TERMINAL
from service.kit import outbox
from service.kit.outbox import OutboxRow, Topic
from service.queue.memory import MemoryJobQueue
from service.tables.files import FileRow
from service.tables.jobs import JobArtifactRow, JobCheckpointRow, JobEventRow, JobRow, JobState
from service.tables.limits import TrainingSpanRow
from service.tables.models import FineTunedModelRow
from service.tables.webhooks import WebhookAttemptRow, WebhookEventRow
from tests.faults.scale import wait_until
from tests.faults.trainer_program import WEIGHTS, chain
from tests.faults.world import World

ARTIFACTS = {"adapter", "report.json", "report.html"}
_FINAL = re.compile(r"The job has successfully completed|The job failed: .*|The job was cancelled", re.DOTALL)
_CLAIM = re.compile(r"Fine-tuning job started(?: again \(attempt (\d+)\))?")
_UNFORESEEN = re.compile(
    r"^.*(?:ERROR service\.api\.middleware|unexpected error in the worker|"
    r"failed with an unexpected error|could not be run|"
    r"the lease could not be renewed$|Could not record this worker's heartbeat$).*$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Rows:
    """All that SQL has of one job."""

    job: JobRow
    events: Sequence[JobEventRow]
    artifacts: Sequence[JobArtifactRow]
    checkpoints: Sequence[JobCheckpointRow]
    models: Sequence[FineTunedModelRow]
    files: Sequence[FileRow]
    spans: Sequence[TrainingSpanRow]
    notices: Sequence[WebhookEventRow]


def check(world: World, *, simulated: bool = True) -> Counter[str]:
    """Assert everything of all jobs that this world ever had; return how many ended how.

    `simulated` tells that the trainer was `trainer_program`, whose result can be recomputed.
    """
    wait_until(lambda: not world.trainers(), what="the end of the last trainer")
    wait_until(lambda: not _unhandled(world), what=f"the outbox to be worked off: {_unhandled(world)}")
    job_ids = world.submitted
    problems = [*_lost(world, job_ids), *_logs(world)]
    if 500 in world.answers:
        problems.append(f"the API answered 500, {world.answers.count(500)} times")
    ended: Counter[str] = Counter()
    for job_id in job_ids:
        found = _rows(world, job_id)
        ended[found.job.state] += 1
        problems += [f"{job_id} ({found.job.state}): {problem}" for problem in _problems(world, found, simulated)]
    problems += _orphans(world)
    assert not problems, "\n".join([*problems, world.log()])
    return ended


def _lost(world: World, job_ids: Sequence[str]) -> Iterator[str]:
    with world.context.db.read() as session:
        there = set(session.scalars(select(JobRow.id)))
    if lost := set(job_ids) - there:
        yield f"lost: {sorted(lost)}"
    if more := there - set(job_ids):
        yield f"created though nobody was told so: {sorted(more)}"


def _logs(world: World) -> Iterator[str]:
    for path in sorted(world.folder.glob("*.log")):
        for line in _UNFORESEEN.findall(path.read_text(errors="replace")):
            yield f"{path.name}: {line}"


def _rows(world: World, job_id: str) -> Rows:
    with world.context.db.read() as session:

        def of(table: type, column: str = "job_id") -> Sequence[object]:
            query = select(table).where(getattr(table, column) == job_id)
            return session.scalars(query.order_by(table.seq)).all()  # type: ignore[attr-defined]

        job = session.scalars(select(JobRow).where(JobRow.id == job_id)).one()
        files = session.scalars(select(FileRow).where(FileRow.blob_key.startswith(f"jobs/{job_id}/"))).all()
        return Rows(
            job=job,
            events=of(JobEventRow),  # type: ignore[arg-type]
            artifacts=of(JobArtifactRow),  # type: ignore[arg-type]
            checkpoints=of(JobCheckpointRow),  # type: ignore[arg-type]
            models=of(FineTunedModelRow),  # type: ignore[arg-type]
            files=files,
            spans=of(TrainingSpanRow),  # type: ignore[arg-type]
            notices=of(WebhookEventRow, "object_id"),  # type: ignore[arg-type]
        )


def _problems(world: World, rows: Rows, simulated: bool) -> Iterator[str]:
    job = rows.job
    if job.state not in TERMINAL:
        yield "it has not ended"
        return
    finals = [event.message for event in rows.events if _FINAL.fullmatch(event.message)]
    if len(finals) != 1:
        yield f"final events: {finals}"
    if [notice.type for notice in rows.notices] != [f"fine_tuning.job.{job.state}"]:
        yield f"notices of its end: {[notice.type for notice in rows.notices]}"
    if len(rows.spans) != job.lease_token or any(span.ended_at is None for span in rows.spans):
        yield f"{job.lease_token} attempts, {len(rows.spans)} spans of running, {_open(rows)} of them open"
    yield from _fencing(rows, simulated)
    yield from _steps(rows)
    yield from (_result(world, rows, simulated) if job.state == JobState.SUCCEEDED else _no_result(rows))
    if job.state == JobState.FAILED and not (job.error and job.error["code"] and job.error["message"]):
        yield f"it failed without a code and a sentence: {job.error}"


def _open(rows: Rows) -> int:
    return sum(span.ended_at is None for span in rows.spans)


def _fencing(rows: Rows, simulated: bool) -> Iterator[str]:
    """An attempt writes nothing once the next one has been claimed."""
    claims = {int(match[1] or 1): event for event in rows.events if (match := _CLAIM.fullmatch(event.message))}
    if sorted(claims) != list(range(1, rows.job.lease_token + 1)):
        yield f"attempts that were claimed: {sorted(claims)} of {rows.job.lease_token}"
    metrics = [event for event in rows.events if event.type == "metrics"] if simulated else []
    for event in metrics:
        after = claims.get(int((event.data or {})["attempt"]) + 1)
        if after is not None and event.seq > after.seq:
            yield f"a stale write: {event.message!r} of attempt {event.data} after {after.message!r}"


def _steps(rows: Rows) -> Iterator[str]:
    shown = Counter(event.data["step"] for event in rows.events if event.type == "metrics" and event.data)
    if twice := [step for step, count in shown.items() if count > 1]:
        yield f"steps that are shown twice: {twice}"
    if rows.job.state == JobState.SUCCEEDED and sorted(shown) != list(range(1, max(shown, default=0) + 1)):
        yield f"steps that are shown: {sorted(shown)}"


def _result(world: World, rows: Rows, simulated: bool) -> Iterator[str]:
    job = rows.job
    names = [artifact.name for artifact in rows.artifacts]
    if sorted(names) != sorted(ARTIFACTS):
        yield f"artifacts: {names}"
        return
    if (len(rows.models), len(rows.files)) != (1, 1) or rows.models[0].id != job.fine_tuned_model:
        yield f"models: {[model.id for model in rows.models]}, result files: {[file.id for file in rows.files]}"
    home = f"jobs/{job.id}/attempt-{job.lease_token}/"
    for blob in (*rows.artifacts, *rows.files):
        if not blob.blob_key.startswith(home):
            yield f"{blob.blob_key} is not of the last attempt"
        stored = world.context.storage.stat(blob.blob_key)
        if stored is None or stored.bytes != blob.bytes:
            yield f"{blob.blob_key} is not in the blob store"
    if simulated:
        adapter = next(artifact for artifact in rows.artifacts if artifact.name == "adapter")
        steps = max(event.data["step"] for event in rows.events if event.type == "metrics" and event.data)
        with zipfile.ZipFile(BytesIO(b"".join(world.context.storage.read(adapter.blob_key)))) as archive:
            if archive.read(WEIGHTS).decode() != chain(job.id, steps):
                yield "its adapter is not what an undisturbed run would have given"


def _no_result(rows: Rows) -> Iterator[str]:
    if rows.artifacts or rows.models or rows.files:
        yield "it has a result though it did not succeed"


def _unhandled(world: World) -> list[str]:
    """Return what the outbox still asks for, but for webhooks whose next try is to come."""
    with world.context.db.read() as session:
        query = select(OutboxRow).where(OutboxRow.done_at.is_(None), OutboxRow.topic != Topic.SEND_WEBHOOK)
        waiting = [*session.scalars(query), *outbox.fetch_due_effects(session, Topic.SEND_WEBHOOK)]
        return [f"{row.topic} {row.payload}" for row in waiting]


def _orphans(world: World) -> Iterator[str]:
    """Let the controller's own sweeper pass over all ended jobs: what is left must be known to SQL."""
    context = world.context
    at_once = context.settings.model_copy(update={"lease_seconds": -60.0, "stop_seconds": 0.0})
    sweeper = AttemptSweeper()
    now = type(context)(**{**vars(context), "settings": at_once})
    for _ in range(len(world.answers) + 50):
        sweeper(now, MemoryJobQueue())
    with context.db.read() as session:
        keys = {*session.scalars(select(FileRow.blob_key)), *session.scalars(select(JobArtifactRow.blob_key))}
        folders = {*session.scalars(select(JobCheckpointRow.blob_prefix))}
    homes = tuple(key.rpartition("/output/")[0] + "/output/" for key in keys if "/output/" in key)
    known = tuple(f"{folder}/" for folder in folders) + homes
    for blob in context.storage.list("jobs"):
        if blob.key not in keys and not blob.key.startswith(known):
            yield f"a blob that nothing refers to stays: {blob.key}"
    for folder in sorted(folders):
        if context.storage.stat(f"{folder}/manifest.json") is None:
            yield f"a checkpoint that SQL knows is not in the blob store: {folder}"


def check_webhooks(world: World, endpoint_id: str, delivered: set[str]) -> Counter[str]:
    """Assert that each event reached the endpoint or is listed as not delivered; return how many did which.

    `delivered` holds the ids of the events that its receiver took.
    """
    told: Counter[str] = Counter()
    with world.context.db.read() as session:
        asked = session.scalars(select(OutboxRow).where(OutboxRow.lane == endpoint_id)).all()
        tried = session.scalars(select(WebhookAttemptRow).where(WebhookAttemptRow.endpoint_id == endpoint_id)).all()
    by_event = Counter(attempt.event_id for attempt in tried)
    for row in asked:
        event_id = row.payload["event_id"]
        if row.done_at is None:
            assert row.error, f"{event_id} is neither delivered nor listed"
            told["to be tried again"] += 1
        elif row.error is None:
            assert event_id in delivered, f"{event_id} is said to be delivered and was not"
            told["delivered"] += 1
        else:
            assert by_event[event_id] or "disabled" in row.error, f"{event_id} is given up without a try: {row.error}"
            told["listed as failed"] += 1
    return told
