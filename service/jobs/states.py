"""The state machine of a job, as data. Nothing else decides which change of state is legal."""

from __future__ import annotations

from service.tables.jobs import JobState

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.VALIDATING: frozenset({JobState.QUEUED, JobState.PAUSED, JobState.FAILED, JobState.CANCELLED}),
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset(
        {JobState.QUEUED, JobState.PAUSED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

TERMINAL = frozenset(state for state, targets in TRANSITIONS.items() if not targets)

# OpenAI's enum has no pause, and a strict client would refuse one: it shows in `phase` instead.
WIRE_STATUS: dict[JobState, str] = {
    JobState.VALIDATING: "validating_files",
    JobState.QUEUED: "queued",
    JobState.RUNNING: "running",
    JobState.PAUSED: "queued",
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}


def sources_of(target: JobState) -> frozenset[JobState]:
    """Return the states from which a job may come to `target`."""
    return frozenset(state for state, targets in TRANSITIONS.items() if target in targets)
