"""What OpenAI's client has for files, uploads, jobs, models and sharing, with strict validation of every answer.

Its webhooks are in test_webhook_endpoints.py, its chat in tests/service/chat.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Generator

import pytest
from openai import BadRequestError, ConflictError, OpenAI
from openai.types.fine_tuning.reinforcement_hyperparameters_param import ReinforcementHyperparametersParam
from openai.types.graders import (
    MultiGraderParam,
    ScoreModelGraderParam,
    StringCheckGraderParam,
    TextSimilarityGraderParam,
)

from tests.fixtures.objects import Objects, make_objects
from tests.fixtures.service import GOOD_JSONL, RunningApi, make_context, run_api


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningApi, None, None]:
    folder = tmp_path_factory.mktemp("official")
    with run_api(make_context(folder, webhook_allowed_networks="127.0.0.0/8")) as running:
        yield running


@pytest.fixture
def objects(api: RunningApi, request: pytest.FixtureRequest) -> Objects:
    return make_objects(api, project=request.node.name[:64])


@pytest.fixture
def official(api: RunningApi, objects: Objects) -> Generator[OpenAI, None, None]:
    with OpenAI(base_url=api.url, api_key=objects.key, max_retries=0, _strict_response_validation=True) as client:
        yield client


@pytest.mark.slow
def test_files_and_uploads(official: OpenAI) -> None:
    file = official.files.create(file=("训练.jsonl", GOOD_JSONL), purpose="fine-tune")
    assert official.files.retrieve(file.id) == file
    assert file.id in [item.id for item in official.files.list(purpose="fine-tune", limit=1)]
    assert official.files.content(file.id).content == GOOD_JSONL
    upload = official.uploads.create(
        filename="b.jsonl", purpose="fine-tune", bytes=len(GOOD_JSONL), mime_type="text/jsonl"
    )
    middle = len(GOOD_JSONL) // 2
    parts = [official.uploads.parts.create(upload.id, data=data) for data in (GOOD_JSONL[middle:], GOOD_JSONL[:middle])]
    done = official.uploads.complete(upload.id, part_ids=[parts[1].id, parts[0].id])
    assert done.file is not None
    assert official.files.content(done.file.id).content == GOOD_JSONL
    chunked = official.uploads.upload_file_chunked(
        file=GOOD_JSONL,
        filename="分块.jsonl",
        bytes=len(GOOD_JSONL),
        mime_type="text/jsonl",
        purpose="fine-tune",
        part_size=100,
        md5=hashlib.md5(GOOD_JSONL, usedforsecurity=False).hexdigest(),
    )
    assert chunked.file is not None
    assert official.files.content(chunked.file.id).content == GOOD_JSONL
    other = official.uploads.create(filename="c.jsonl", purpose="fine-tune", bytes=9, mime_type="text/jsonl")
    assert official.uploads.cancel(other.id).status == "cancelled"
    assert official.files.delete(file.id).deleted


def test_members_that_openai_leaves_out_are_absent(official: OpenAI, objects: Objects) -> None:
    file = official.files.retrieve(objects.ids["file_id"])
    assert not {"expires_at", "status_details"} & file.model_fields_set
    kept = official.files.create(
        file=GOOD_JSONL, purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert kept.expires_at is not None
    events = official.fine_tuning.jobs.list_events(objects.ids["job_id"]).data
    assert events
    assert all(event.data is not None or "data" not in event.model_fields_set for event in events)
    assert any("data" not in event.model_fields_set for event in events)
    none_of_these = official.files.list(purpose="evals")
    assert none_of_these.data == []
    assert not {"first_id", "last_id"} & set(none_of_these.model_extra or {})


def test_files_without_a_telling_name(official: OpenAI) -> None:
    named = io.BytesIO(GOOD_JSONL)
    named.name = "训练.json"
    marked = b"\xef\xbb\xbf" + GOOD_JSONL
    for file, name in ((GOOD_JSONL, "upload"), (io.BytesIO(marked), "upload"), (named, "训练.json")):
        made = official.files.create(file=file, purpose="fine-tune")
        assert (made.filename, made.status) == (name, "processed")
    chunked = official.uploads.upload_file_chunked(
        file=GOOD_JSONL, filename="训练", bytes=len(GOOD_JSONL), mime_type="text/plain", purpose="fine-tune"
    )
    assert chunked.file is not None
    assert official.files.retrieve(chunked.file.id).filename == "训练"


def test_jobs_from_creation_to_their_end(official: OpenAI, objects: Objects) -> None:
    jobs = official.fine_tuning.jobs
    file_id = objects.ids["file_id"]
    supervised = jobs.create(
        model="tiny",
        training_file=file_id,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2}},
            "dpo": {"hyperparameters": {"beta": "auto"}},
        },
        suffix="desk",
        seed=7,
        metadata={"团队": "客服"},
        integrations=[{"type": "wandb", "wandb": {"project": "客服", "tags": ["desk"]}}],
    )
    (integration,) = supervised.integrations or []
    assert (integration.type, integration.wandb.project, integration.wandb.name) == ("wandb", "客服", None)
    assert integration.wandb.tags == ["desk"]
    assert jobs.retrieve(supervised.id).integrations == supervised.integrations
    assert supervised.method is not None
    assert supervised.method.supervised is not None
    assert supervised.method.supervised.hyperparameters.n_epochs == 2  # type: ignore[union-attr]
    preferences = jobs.create(
        model="tiny", training_file=file_id, method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}
    )
    assert preferences.integrations == []
    assert preferences.method.dpo.hyperparameters.beta == 0.2  # type: ignore[union-attr]
    assert [job.id for job in jobs.list(limit=1)][:2] == [preferences.id, supervised.id]
    assert jobs.list(metadata={"团队": "客服"}).data[0].id == supervised.id
    assert jobs.retrieve(supervised.id).seed == 7
    assert jobs.cancel(preferences.id).status == "cancelled"
    with pytest.raises(ConflictError):
        jobs.cancel(preferences.id)
    assert jobs.pause(objects.open_job).status == "queued"
    assert jobs.resume(objects.open_job).status in ("validating_files", "queued")
    messages = [event.message for event in jobs.list_events(objects.ids["job_id"], limit=1)]
    assert messages[0] == "第一步"
    assert len(messages) == 3
    (checkpoint,) = jobs.checkpoints.list(objects.ids["job_id"])
    assert (checkpoint.step_number, checkpoint.metrics.full_valid_loss) == (3, 0.25)


def test_models_and_whom_they_are_shared_with(official: OpenAI, objects: Objects) -> None:
    name = objects.ids["model"]
    assert [model.id for model in official.models.list()] == ["tiny", name]
    assert official.models.retrieve(name).owned_by == objects.ids["project_id"]
    permissions = official.fine_tuning.checkpoints.permissions
    (shared,) = permissions.create(name, project_ids=[objects.ids["other_project"]])
    assert [permission.id for permission in permissions.list(name)] == [shared.id]
    assert permissions.delete(shared.id, fine_tuned_model_checkpoint=name).deleted
    assert official.models.delete(name).deleted


def test_reinforcement_with_each_kind_of_grader(official: OpenAI, objects: Objects) -> None:
    check: StringCheckGraderParam = {
        "type": "string_check",
        "name": "right",
        "operation": "eq",
        "input": "{{sample.output_text}}",
        "reference": "{{item.答案}}",
    }
    similar: TextSimilarityGraderParam = {
        "type": "text_similarity",
        "name": "near",
        "evaluation_metric": "rouge_l",
        "input": "{{sample.output_text}}",
        "reference": "{{item.答案}}",
    }
    judge: ScoreModelGraderParam = {
        "type": "score_model",
        "name": "judge",
        "model": "tiny",
        "input": [{"role": "user", "content": "打分: {{sample.output_text}}"}],
        "range": [0, 10],
    }
    both: MultiGraderParam = {"type": "multi", "name": "m", "graders": similar, "calculate_output": "2 * near"}
    given: ReinforcementHyperparametersParam = {
        "batch_size": 2,
        "compute_multiplier": 1.5,
        "eval_interval": 3,
        "eval_samples": "auto",
        "learning_rate_multiplier": "auto",
        "n_epochs": 1,
        "reasoning_effort": "low",
    }
    for grader in (check, similar, judge, both):
        job = official.fine_tuning.jobs.create(
            model="tiny",
            training_file=objects.ids["file_id"],
            method={"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": given}},
        )
        assert job.method is not None
        assert job.method.reinforcement is not None
        shown = job.method.reinforcement
        assert (shown.grader.type, shown.grader.name) == (grader["type"], grader["name"])
        assert shown.hyperparameters is not None
        asked = shown.hyperparameters.to_dict()
        assert {name: asked[name] for name in given} == given
        assert official.fine_tuning.jobs.retrieve(job.id).method == job.method
    with pytest.raises(BadRequestError, match="BURNISH_PYTHON_GRADERS=on") as refused:
        official.fine_tuning.jobs.create(
            model="tiny",
            training_file=objects.ids["file_id"],
            method={
                "type": "reinforcement",
                "reinforcement": {"grader": {"type": "python", "name": "p", "source": "def grade(sample, item): ..."}},
            },
        )
    assert refused.value.param == "method.reinforcement.grader"
