"""The rules of jobs: what may be asked for, and what becomes of it."""

from __future__ import annotations

import secrets
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from service.catalog import Catalog
from service.files import service as files
from service.jobs import lifecycle, repository
from service.jobs.errors import ArtifactNotReady, JobHasEnded, JobNotFound
from service.jobs.schemas import JobCreate
from service.jobs.states import WIRE_STATUS, JobState
from service.jobs.tables import Job, JobArtifact
from service.keys.service import Principal
from service.kit import ids
from service.kit.errors import InvalidRequest
from service.kit.text import refuse_unstorable
from service.models import service as models
from trainer.methods import METHODS, Method

_METHOD: TypeAdapter[Method] = TypeAdapter(Method)
_METHOD_TYPES = tuple(method.model_fields["type"].default for method in METHODS)


def create(session: Session, principal: Principal, catalog: Catalog, body: JobCreate) -> Job:
    """Create a job in `validating`: the controller checks its files next. Raises InvalidRequest or NotFound."""
    refuse_unstorable(body.model_dump(exclude_none=True))
    base = models.find_base(session, principal, catalog, body.model)
    _check_file(session, principal, body.training_file, "training_file")
    if body.validation_file is not None:
        _check_file(session, principal, body.validation_file, "validation_file")
    job = Job(
        id=ids.new_id(ids.JOB),
        project_id=principal.project_id,
        state=JobState.VALIDATING,
        model=base.id,
        method=parse_method(body).model_dump(mode="json"),
        training_file=body.training_file,
        validation_file=body.validation_file,
        suffix=body.suffix,
        seed=secrets.randbelow(2**31) if body.seed is None else body.seed,
        user_metadata=body.metadata,
    )
    session.add(job)
    session.flush()
    session.refresh(job)
    repository.add_event(session, job.id, f"Created fine-tuning job: {job.id}")
    repository.add_event(session, job.id, f"Validating training file: {job.training_file}")
    return job


def find(session: Session, principal: Principal, job_id: str) -> Job:
    """Return a job that the caller may see. Raises JobNotFound."""
    job = repository.get(session, principal.project_id, job_id)
    if job is None:
        raise JobNotFound(job_id)
    return job


def cancel(session: Session, principal: Principal, job_id: str) -> Job:
    """Cancel a job at once, whatever it is doing. Raises JobNotFound or JobHasEnded."""
    job = find(session, principal, job_id)
    moved = lifecycle.cancel(session, job_id)
    session.refresh(job)
    if not moved:
        raise JobHasEnded(job_id, job.state)
    return job


def artifact(session: Session, principal: Principal, job_id: str, name: str, what: str) -> JobArtifact:
    """Return a result of a succeeded job. Raises JobNotFound or ArtifactNotReady."""
    job = find(session, principal, job_id)
    found = repository.artifact(session, job_id, name)
    if found is None:
        raise ArtifactNotReady(job_id, what, WIRE_STATUS[JobState(job.state)])
    return found


def parse_method(body: JobCreate) -> Method:
    """Turn the wire's `method`, or the older `hyperparameters`, into the trainer's. Raises InvalidRequest."""
    if body.method is None:
        kind: Any = "supervised"
        block: Any = {} if body.hyperparameters is None else {"hyperparameters": body.hyperparameters}
        place = "hyperparameters"
    else:
        kind = body.method.get("type")
        block = body.method.get(kind) if isinstance(kind, str) else None
        block = {} if block is None else block
        place = f"method.{kind}"
    if kind not in _METHOD_TYPES:
        raise InvalidRequest(
            f"`method.type` is {kind!r}; this service trains: {', '.join(_METHOD_TYPES)}.", param="method.type"
        )
    try:
        return _METHOD.validate_python({"type": kind, kind: block})
    except ValidationError as error:
        raise _invalid_method(error, kind, place) from error


def _invalid_method(error: ValidationError, kind: str, place: str) -> InvalidRequest:
    """Name the field in the words of the request, and everything that is wrong with it."""
    reasons: dict[str, list[str]] = {}
    for item in error.errors(include_url=False, include_input=False):
        parts = [str(part) for part in item["loc"] if part != kind and "[" not in str(part)]
        if place == "hyperparameters" and parts[:1] == ["hyperparameters"]:
            parts = parts[1:]
        named = ".".join([place, *(part for part in parts if part not in _UNION_TAGS)])
        message = "is not a hyperparameter of this method" if item["type"] == "extra_forbidden" else item["msg"]
        reasons.setdefault(named, []).append(message)
    sentences = [f"{name}: {' or '.join(dict.fromkeys(messages))}" for name, messages in reasons.items()]
    return InvalidRequest("; ".join(sentences) + ".", param=next(iter(reasons)))


_UNION_TAGS = frozenset({"int", "float", "literal['auto']", "constrained-int", "constrained-float"})


def _check_file(session: Session, principal: Principal, file_id: str, param: str) -> None:
    file = files.find(session, principal, file_id, param=param)
    if file.purpose not in files.UPLOAD_PURPOSES:
        raise InvalidRequest(
            f"The file {file_id} has the purpose '{file.purpose}'; a dataset needs 'fine-tune'.", param=param
        )
