"""SQL of the workers that are alive."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from service.kit.db import db_now
from service.tables.workers import WorkerRow
from service.workers.capacity import Capacity


def report_worker(session: Session, worker_id: str, *, name: str, capacity: Capacity) -> None:
    """Note that a worker lives, and what it has."""
    result = session.execute(
        update(WorkerRow).where(WorkerRow.id == worker_id).values(seen_at=db_now()).returning(WorkerRow.id)
    ).first()
    if result is None:
        session.add(
            WorkerRow(
                id=worker_id,
                name=name,
                gpus=capacity.gpus,
                gpu_memory=capacity.gpu_memory,
                labels=sorted(capacity.labels),
                trains_in_4bit=capacity.trains_in_4bit,
            )
        )


def remove_worker(session: Session, worker_id: str) -> None:
    """Forget a worker that ends."""
    session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))


def delete_stopped_workers(session: Session, *, age: float) -> int:
    """Forget the workers that have not been seen for `age` seconds; return how many."""
    deleted_rows = session.execute(delete(WorkerRow).where(WorkerRow.seen_at < db_now() - age).returning(WorkerRow.id))
    return len(deleted_rows.all())


def alive_workers(session: Session, *, within: float) -> Sequence[WorkerRow]:
    """Return the workers seen in the last `within` seconds, by name."""
    return session.scalars(
        select(WorkerRow).where(WorkerRow.seen_at >= db_now() - within).order_by(WorkerRow.name)
    ).all()


def capacity_of(worker: WorkerRow) -> Capacity:
    """Return what a worker said that it has."""
    return Capacity(
        gpus=worker.gpus,
        gpu_memory=worker.gpu_memory,
        labels=frozenset(worker.labels),
        trains_in_4bit=worker.trains_in_4bit,
    )
