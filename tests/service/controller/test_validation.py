from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from service.context import Context
from service.controller import validation
from service.controller.validation import validate_jobs
from service.files import repository as files
from service.files import service as file_service
from service.files.checking import Needed
from service.jobs import lifecycle, repository
from service.jobs.datasets import DatasetChecks
from service.kit import outbox
from service.queue.memory import MemoryJobQueue
from service.storage.errors import StorageUnavailable
from service.tables.jobs import JobEventRow, JobRow, JobState
from tests.service.controller.conftest import GOOD_ROW, MakeFile, MakeJob

ReadJob = Callable[[str], JobRow]
NO_ROLE = '{"messages":[{"role":"用户","content":"你好"},{"role":"assistant","content":"您好"}]}\n'
NO_ANSWER = '{"messages":[{"role":"user","content":"在吗?"}]}\n'


def events_of(context: Context, job_id: str) -> Sequence[JobEventRow]:
    with context.db.read() as session:
        return repository.events_since(session, job_id, 0)


def test_good_files_put_the_job_into_the_queue(
    context: Context, queue: MemoryJobQueue, make_file: MakeFile, make_job: MakeJob, job_of: ReadJob
) -> None:
    job_id = make_job(make_file(GOOD_ROW * 3), validation_file=make_file(GOOD_ROW, "held-out.jsonl"))
    assert validate_jobs(context, queue) == 1
    assert job_of(job_id).state == JobState.QUEUED
    with context.db.read() as session:
        rows = outbox.fetch_due_effects(session, outbox.Topic.ENQUEUE_JOB)
    assert [row.payload for row in rows] == [{"job_id": job_id}]


def test_every_problem_is_named_with_file_line_and_reason(
    context: Context, queue: MemoryJobQueue, make_file: MakeFile, make_job: MakeJob, job_of: ReadJob
) -> None:
    file_id = make_file(GOOD_ROW + NO_ROLE + "\n" + NO_ANSWER, "训练.jsonl")
    job_id = make_job(file_id)
    validate_jobs(context, queue)
    job = job_of(job_id)
    assert job.state == JobState.FAILED
    assert job.finished_at is not None
    assert job.error is not None
    assert (job.error["code"], job.error["param"]) == ("invalid_training_file", "training_file")
    assert job.error["message"].startswith("训练.jsonl has 2 problems: line 2: ")
    assert "用户" in job.error["message"]
    assert "; line 4: " in job.error["message"]
    (event,) = [event for event in events_of(context, job_id) if event.data]
    assert event.level == "error"
    assert event.data is not None
    assert (event.data["file"], event.data["filename"]) == (file_id, "训练.jsonl")
    assert [problem["line"] for problem in event.data["problems"]] == [2, 4]
    assert all(problem["reason"] for problem in event.data["problems"])


def test_the_first_twenty_problems_are_listed_and_the_others_counted(
    context: Context, queue: MemoryJobQueue, make_file: MakeFile, make_job: MakeJob, job_of: ReadJob
) -> None:
    job_id = make_job(make_file(NO_ANSWER * 33))
    validate_jobs(context, queue)
    error = job_of(job_id).error
    assert error is not None
    assert "line 20: " in error["message"]
    assert "line 21: " not in error["message"]
    assert error["message"].endswith("and 13 more")
    (event,) = [event for event in events_of(context, job_id) if event.data]
    assert event.data is not None
    assert (len(event.data["problems"]), event.data["more_problems"]) == (20, 13)


def test_bad_training_and_validation_files_are_reported_separately(
    context: Context, queue: MemoryJobQueue, make_file: MakeFile, make_job: MakeJob, job_of: ReadJob
) -> None:
    only_validation = make_job(make_file(), validation_file=make_file(NO_ANSWER, "held-out.jsonl"))
    both = make_job(make_file(NO_ROLE), validation_file=make_file(NO_ANSWER, "held-out.jsonl"))
    validate_jobs(context, queue)
    error = job_of(only_validation).error
    assert error is not None
    assert (error["code"], error["param"]) == ("invalid_validation_file", "validation_file")
    error = job_of(both).error
    assert error is not None
    assert error["code"] == "invalid_training_file"
    reported = [event.data["param"] for event in events_of(context, both) if event.data]
    assert reported == ["training_file", "validation_file"]


def test_a_line_longer_than_the_setting_is_refused(
    context: Context, queue: MemoryJobQueue, make_file: MakeFile, make_job: MakeJob, job_of: ReadJob
) -> None:
    object.__setattr__(context.settings, "max_line_bytes", 200)
    job_id = make_job(make_file(GOOD_ROW + GOOD_ROW.replace("晴天", "晴" * 100)))
    validate_jobs(context, queue)
    error = job_of(job_id).error
    assert error is not None
    assert "line 2: " in error["message"]
    assert "200" in error["message"]


ROWS_OF = {
    "pretraining": {"text": "从前"},
    "reward": {
        "responses": [{"message": {"role": "assistant", "content": "晴" * rank}, "rank": rank} for rank in (2, 1)]
    },
    "dpo": {
        "preferred_output": [{"role": "assistant", "content": "晴"}],
        "non_preferred_output": [{"role": "assistant", "content": "阴"}],
    },
    "ppo": {},
    "kto": {"output": [{"role": "assistant", "content": "晴"}], "label": True},
}
INPUT = {"input": {"messages": [{"role": "user", "content": "天气?"}]}}


@pytest.mark.slow
@pytest.mark.parametrize("method", ROWS_OF)
def test_each_method_has_its_own_rows(
    context: Context, queue: MemoryJobQueue, make_file: MakeFile, make_job: MakeJob, job_of: ReadJob, method: str
) -> None:
    row = ROWS_OF[method] if method == "pretraining" else INPUT | ROWS_OF[method]
    good = make_job(make_file(json.dumps(row, ensure_ascii=False)), method=method)
    bad = make_job(make_file(GOOD_ROW), method=method)
    validate_jobs(context, queue)
    assert (job_of(good).state, job_of(bad).state) == (JobState.QUEUED, JobState.FAILED)
    error = job_of(bad).error
    assert error is not None
    assert "line 1: " in error["message"]


def test_text_is_for_pretraining_alone(
    context: Context, queue: MemoryJobQueue, make_file: MakeFile, make_job: MakeJob, job_of: ReadJob
) -> None:
    held_out = make_file("قصة", "b.txt")
    good = make_job(make_file("从前有座山。", "故事.txt"), validation_file=held_out, method="pretraining")
    wrong = make_job(make_file("从前有座山。", "故事.txt"), method="dpo")
    broken = make_job(make_file(b"a\n\xff", "a.txt"), method="pretraining")
    validate_jobs(context, queue)
    assert job_of(good).state == JobState.QUEUED
    first, second = (job_of(job_id).error for job_id in (wrong, broken))
    assert first is not None
    assert second is not None
    assert (first["code"], first["message"]) == (
        "invalid_training_file",
        "故事.txt has 1 problem: it is plain text, which only pretraining reads; dpo needs .jsonl rows",
    )
    assert "a.txt has 1 problem: line 2: is not UTF-8" in second["message"]


def test_a_file_deleted_meanwhile_fails_the_job_with_a_sentence(
    context: Context, queue: MemoryJobQueue, make_file: MakeFile, make_job: MakeJob, job_of: ReadJob
) -> None:
    deleted, lost = make_file(), make_file(filename="lost.jsonl")
    jobs = [make_job(deleted), make_job(lost)]
    with context.db.write() as session:
        file = files.get_project_file(session, "proj_test", deleted)
        assert file is not None
        file_service.remove_file(session, file)
    context.storage.delete(f"files/{lost}")
    validate_jobs(context, queue)
    first, second = (job_of(job_id).error for job_id in jobs)
    assert first is not None
    assert second is not None
    assert "was deleted before it could be checked" in first["message"]
    assert "lost.jsonl" in second["message"]
    assert {first["code"], second["code"]} == {"invalid_training_file"}


def test_a_file_of_another_project_is_not_read(
    context: Context, queue: MemoryJobQueue, make_file: MakeFile, make_job: MakeJob, job_of: ReadJob
) -> None:
    from service.tables.keys import ProjectRow

    with context.db.write() as session:
        session.add(ProjectRow(id="proj_other", name="other"))
    file_id = make_file()
    job_id = make_job(file_id)
    with context.db.write() as session:
        job = repository.by_id(session, job_id)
        assert job is not None
        job.project_id = "proj_other"
    validate_jobs(context, queue)
    error = job_of(job_id).error
    assert error is not None
    assert file_id in error["message"]


def test_one_file_that_our_code_stumbles_over_blocks_no_other(
    context: Context,
    queue: MemoryJobQueue,
    make_file: MakeFile,
    make_job: MakeJob,
    job_of: ReadJob,
    caplog: pytest.LogCaptureFixture,
) -> None:
    strange = make_job(make_file())
    with context.db.write() as session:
        job = repository.by_id(session, strange)
        assert job is not None
        job.method = {"type": "unheard of"}
    good = make_job(make_file())
    validate_jobs(context, queue)
    assert (job_of(strange).state, job_of(good).state) == (JobState.FAILED, JobState.QUEUED)
    error = job_of(strange).error
    assert error is not None
    assert error["code"] == "server_error"
    assert strange in caplog.text


def test_a_job_cancelled_meanwhile_stays_cancelled(
    context: Context,
    queue: MemoryJobQueue,
    make_file: MakeFile,
    make_job: MakeJob,
    job_of: ReadJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = [make_job(make_file()), make_job(make_file(NO_ANSWER))]
    check = validation._check_job

    def check_and_cancel(checks: DatasetChecks, job: JobRow, needed: Needed) -> object:
        result = check(checks, job, needed)
        with context.db.write() as session:
            assert lifecycle.cancel_job(session, job.id)
        return result

    monkeypatch.setattr(validation, "_check_job", check_and_cancel)
    validate_jobs(context, queue)
    assert [job_of(job_id).state for job_id in jobs] == [JobState.CANCELLED] * 2
    with context.db.read() as session:
        assert not outbox.fetch_due_effects(session, outbox.Topic.ENQUEUE_JOB)


def test_a_store_that_is_away_leaves_the_job_as_it_is(
    context: Context,
    queue: MemoryJobQueue,
    make_file: MakeFile,
    make_job: MakeJob,
    job_of: ReadJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = make_job(make_file())

    def away(*_: object, **__: object) -> object:
        raise StorageUnavailable("The blob store is away.")

    with monkeypatch.context() as patch:
        patch.setattr(type(context.storage), "read", away)
        with pytest.raises(StorageUnavailable):
            validate_jobs(context, queue)
    assert job_of(job_id).state == JobState.VALIDATING
    validate_jobs(context, queue)
    assert job_of(job_id).state == JobState.QUEUED
