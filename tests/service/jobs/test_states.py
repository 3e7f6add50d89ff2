from __future__ import annotations

from typing import get_args

import pytest

from service.jobs.schemas import JobObject
from service.jobs.states import TERMINAL, TRANSITIONS, WIRE_STATUS, sources_of
from service.tables.jobs import JobState


def test_every_state_has_its_place() -> None:
    assert set(TRANSITIONS) == set(WIRE_STATUS) == set(JobState)
    assert {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED} == TERMINAL
    assert set(WIRE_STATUS.values()) == set(get_args(JobObject.model_fields["status"].annotation))


def test_only_a_running_job_succeeds() -> None:
    assert sources_of(JobState.SUCCEEDED) == {JobState.RUNNING}


@pytest.mark.parametrize("state", sorted(set(JobState) - TERMINAL))
def test_what_has_not_ended_can_be_cancelled(state: JobState) -> None:
    assert state in sources_of(JobState.CANCELLED)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_an_end_is_an_end(state: JobState) -> None:
    assert not any(state in targets for targets in map(sources_of, JobState))
