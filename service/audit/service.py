"""The rules of the log: a change is recorded in its own transaction. Refused calls: see `refusals`."""

from __future__ import annotations

import getpass

from sqlalchemy.orm import Session

from service.audit import repository
from service.audit.actions import action_of
from service.kit.call import ApiCall
from service.kit.db import made_ids


def record_call(session: Session, call: ApiCall) -> None:
    """Record a call in the transaction that makes its changes. Once a call; one that only reads is not recorded."""
    action = action_of(call)
    if action is None or call.recorded:
        return
    new_ids = [made_id for made_id in made_ids(session) if action.makes and made_id.startswith(action.makes)]
    outcome = "replayed" if call.replayed else "succeeded"
    object_id = new_ids[0] if new_ids else call.object_id
    if object_id is None and not action.makes:
        object_id = repository.last_param(call)
    project_id = call.params.get("project_id") or call.project_id
    repository.add_call(session, call, type_=action.type, outcome=outcome, project_id=project_id, object_id=object_id)
    call.recorded = True


def record_operator(session: Session, type_: str, *, object_id: str, project_id: str | None = None) -> None:
    """Record an operator's command on the server, in its transaction."""
    repository.add_audit_row(
        session,
        type=type_,
        outcome="succeeded",
        actor="operator",
        operator=_operator_name(),
        object_id=object_id,
        project_id=project_id,
    )


def record_service(session: Session, type_: str, *, object_id: str, project_id: str | None = None) -> None:
    """Record something that the service did by itself, in its transaction."""
    repository.add_audit_row(
        session, type=type_, outcome="succeeded", actor="service", object_id=object_id, project_id=project_id
    )


def _operator_name() -> str:
    try:
        return getpass.getuser()[:64]
    except (KeyError, OSError):  # no name for this user id, as in many containers
        return "unknown"
