"""What the log calls each operation that changes something. A test sees to it that none is left out."""

from __future__ import annotations

from dataclasses import dataclass

from service.kit import ids
from service.kit.call import ApiCall


@dataclass(frozen=True)
class Action:
    """An event's type, and the prefix of the new object's id; without it, the path names the object."""

    type: str
    makes: str | None = None


_FILES, _UPLOADS = "/v1/files", "/v1/uploads"
_JOBS = "/v1/fine_tuning/jobs"
_SHARED = "/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions"
_EXPORTS = "/v1/models/{model}/exports"
_HOOKS = "/v1/webhook_endpoints"
_PROJECTS = "/v1/organization/projects"

ACTIONS: dict[tuple[str, str], Action] = {
    ("POST", _FILES): Action("file.created", ids.FILE),
    ("DELETE", f"{_FILES}/{{file_id}}"): Action("file.deleted"),
    ("POST", _UPLOADS): Action("upload.created", ids.UPLOAD),
    ("POST", f"{_UPLOADS}/{{upload_id}}/parts"): Action("upload.part.created", ids.PART),
    ("POST", f"{_UPLOADS}/{{upload_id}}/complete"): Action("upload.completed"),
    ("POST", f"{_UPLOADS}/{{upload_id}}/cancel"): Action("upload.cancelled"),
    ("POST", _JOBS): Action("fine_tuning.job.created", ids.JOB),
    ("DELETE", f"{_JOBS}/{{job_id}}"): Action("fine_tuning.job.deleted"),
    ("POST", f"{_JOBS}/{{job_id}}/cancel"): Action("fine_tuning.job.cancelled"),
    ("POST", f"{_JOBS}/{{job_id}}/pause"): Action("fine_tuning.job.paused"),
    ("POST", f"{_JOBS}/{{job_id}}/resume"): Action("fine_tuning.job.resumed"),
    ("POST", _SHARED): Action("checkpoint.permission.created"),
    ("DELETE", f"{_SHARED}/{{permission_id}}"): Action("checkpoint.permission.deleted"),
    ("DELETE", "/v1/models/{model}"): Action("model.deleted"),
    ("POST", _EXPORTS): Action("model.export.created", ids.EXPORT),
    ("DELETE", f"{_EXPORTS}/{{export_id}}"): Action("model.export.deleted"),
    ("POST", _HOOKS): Action("webhook_endpoint.created", ids.WEBHOOK_ENDPOINT),
    ("POST", f"{_HOOKS}/{{webhook_endpoint_id}}"): Action("webhook_endpoint.updated"),
    ("DELETE", f"{_HOOKS}/{{webhook_endpoint_id}}"): Action("webhook_endpoint.deleted"),
    ("POST", f"{_HOOKS}/{{webhook_endpoint_id}}/rotate_secret"): Action("webhook_endpoint.secret_rotated"),
    ("POST", f"{_HOOKS}/{{webhook_endpoint_id}}/test"): Action("webhook_endpoint.tested"),
    ("POST", f"{_HOOKS}/{{webhook_endpoint_id}}/replay"): Action("webhook_endpoint.replayed"),
    ("POST", _PROJECTS): Action("project.created", ids.PROJECT),
    ("POST", f"{_PROJECTS}/{{project_id}}"): Action("project.updated"),
    ("DELETE", f"{_PROJECTS}/{{project_id}}"): Action("project.deleted"),
    ("POST", f"{_PROJECTS}/{{project_id}}/limits"): Action("project.limits.updated"),
    ("POST", f"{_PROJECTS}/{{project_id}}/api_keys"): Action("api_key.created", ids.KEY),
    ("DELETE", f"{_PROJECTS}/{{project_id}}/api_keys/{{key_id}}"): Action("api_key.deleted"),
}
_GRADERS = "/v1/fine_tuning/alpha/graders"
CHANGES_NOTHING = frozenset(
    {
        ("POST", "/v1/chat/completions"),
        ("POST", f"{_JOBS}/preview"),
        ("POST", f"{_GRADERS}/run"),
        ("POST", f"{_GRADERS}/validate"),
    }
)
"""Operations that take a body and keep nothing of it."""


def action_of(call: ApiCall) -> Action | None:
    """Return what a call does; None if it changes nothing. An operation without a name is called by its path."""
    place = (call.method, call.route)
    if call.method in ("GET", "HEAD", "OPTIONS") or place in CHANGES_NOTHING:
        return None
    return ACTIONS.get(place) or Action(f"{call.method} {call.route}"[:64])
