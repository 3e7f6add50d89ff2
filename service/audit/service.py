"""The rules of the log: a change is told in its own transaction, a refused call in one of its own."""

from __future__ import annotations

import getpass
import logging

from sqlalchemy.orm import Session

from service.audit import repository
from service.audit.actions import Action, action_of
from service.kit.call import Call
from service.kit.db import Database, made_ids

_log = logging.getLogger(__name__)
_MOST_ID, _MOST_OBJECT = 40, 320


def record(session: Session, call: Call) -> None:
    """Tell of a call in the transaction that changes what it changes. Once a call; one that only reads is not told."""
    action = action_of(call)
    if action is None or call.recorded:
        return
    made = [made_id for made_id in made_ids(session) if action.makes and made_id.startswith(action.makes)]
    outcome = "replayed" if call.replayed else "succeeded"
    _add(session, call, action, made[0] if made else _object_of(call, action), outcome=outcome)
    call.recorded = True


def record_failure(db: Database, call: Call, status: int) -> None:
    """Tell of a call that was refused or went wrong; `status` is the answer's. A failure to do so is logged alone."""
    action = action_of(call)
    if action is None or call.key_id is None or call.unrecorded:
        return
    call.recorded = True
    try:
        with db.write() as session:
            _add(session, call, action, _object_of(call, action), outcome="failed", status_code=status)
    except Exception as error:  # noqa: BLE001 - the caller gets the answer that was decided, whatever fails here
        _log.error("a refused call could not be written to the audit log: %s", error)


def record_operator(session: Session, type_: str, *, object_id: str, project_id: str | None = None) -> None:
    """Tell of an operator's command on the server, in its transaction."""
    repository.add(
        session,
        type=type_,
        outcome="succeeded",
        actor="operator",
        operator=_operator(),
        object_id=object_id,
        project_id=project_id,
    )


def record_service(session: Session, type_: str, *, object_id: str, project_id: str | None = None) -> None:
    """Tell of something that the service did of its own accord, in its transaction."""
    repository.add(
        session, type=type_, outcome="succeeded", actor="service", object_id=object_id, project_id=project_id
    )


def _add(
    session: Session, call: Call, action: Action, object_id: str | None, *, outcome: str, status_code: int | None = None
) -> None:
    project_id = call.params.get("project_id") or call.project_id
    repository.add(
        session,
        type=action.type,
        outcome=outcome,
        status_code=status_code,
        actor="api_key",
        key_id=call.key_id,
        project_id=project_id and project_id[:_MOST_ID],
        object_id=object_id and object_id[:_MOST_OBJECT],
        request_id=call.request_id,
        address=call.address,
    )


def _object_of(call: Call, action: Action) -> str | None:
    if call.object_id is not None or action.makes:
        return call.object_id
    return next(reversed(list(call.params.values())), None)


def _operator() -> str:
    try:
        return getpass.getuser()[:64]
    except (KeyError, OSError):  # no name for this user id, as in many containers
        return "unknown"
