"""Looks at base models before jobs need them: the cheap look at files again and again, a card once from the trainer."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from service.bases import repository
from service.catalog import BaseModelEntry, CatalogFolderSource, CatalogHubSource, SourceMissing, locate_source
from service.catalog.base_folder import BrokenBase, check_base_folder, fingerprint_folder, list_changed_files
from service.context import Context
from service.kit.settings import Settings
from service.staging.child import WorkerChild, trainer_environment
from service.staging.errors import WorkerStopping
from service.tables.base_models import BaseModelRow
from trainer.contract.base_model import BaseModelCard, HubFetch, Inspection, hub_folder_name
from trainer.contract.result import ExitCode

_log = logging.getLogger(__name__)

INSPECT_COMMAND = (sys.executable, "-m", "trainer.programs.inspect_base")
FETCH_COMMAND = (sys.executable, "-m", "trainer.programs.fetch_base")
_NICENESS = ("nice", "-n", "10")
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class BaseFindings:
    """What was found of a base: its files if it is a folder, a card, or what is wrong."""

    files: Mapping[str, str] | None = None
    card: BaseModelCard | None = None
    problem: str | None = None


def hub_folder(settings: Settings, source: CatalogHubSource) -> Path | None:
    """Return where a hub model's files lie on this machine, None if `models add` has not fetched them here."""
    folder = settings.hub / hub_folder_name(source.repo, source.revision)
    return folder if folder.is_dir() else None


def describe_source(settings: Settings, entry: BaseModelEntry) -> dict[str, Any]:
    """Return a base's source as the trainer's programs read it. Raises SourceMissing if this machine lacks it."""
    source = locate_source(entry.source)
    if isinstance(entry.source, CatalogHubSource) and (folder := hub_folder(settings, entry.source)):
        source["folder"] = str(folder)
    return source if entry.chat_template is None else source | {"chat_template": entry.chat_template}


def look_at_files(entry: BaseModelEntry) -> BaseFindings:
    """Look at what can be seen without a model: a missing package, a folder that is not whole."""
    try:
        if isinstance(entry.source, CatalogFolderSource):
            check_base_folder(entry.source.path)
            return BaseFindings(files=fingerprint_folder(entry.source.path))
        locate_source(entry.source)
    except (BrokenBase, SourceMissing) as error:
        return BaseFindings(problem=str(error))
    except OSError as error:
        return BaseFindings(problem=f"The base model in {entry.place} cannot be read: {error.strerror}.")
    return BaseFindings()


def inspect_base(
    settings: Settings,
    entry: BaseModelEntry,
    *,
    command: Sequence[str] = INSPECT_COMMAND,
    stop: threading.Event | None = None,
) -> BaseFindings:
    """Look at the files, then let the trainer make a card. Raises WorkerStopping.

    There is neither card nor problem if the base is on the hub and was not fetched to this machine.
    """
    findings = look_at_files(entry)
    if findings.problem is not None:
        return findings
    source = entry.source
    if isinstance(source, CatalogHubSource):
        folder = hub_folder(settings, source)
        if folder is None:
            return findings
        try:
            check_base_folder(folder)
        except BrokenBase as error:
            return BaseFindings(problem=str(error))
    inspection = _run_inspection(settings, describe_source(settings, entry), entry.place, command, stop)
    return BaseFindings(files=findings.files, card=inspection.card, problem=inspection.problem)


def inspect_folder_files(settings: Settings, entry: BaseModelEntry, folder: Path) -> Inspection:
    """Let the trainer make a card of files without weights, for a base of the hub."""
    source = locate_source(entry.source) | {"folder": str(folder)}
    if entry.chat_template is not None:
        source["chat_template"] = entry.chat_template
    return _run_inspection(settings, source, entry.place, INSPECT_COMMAND, None)


def fetch_from_hub(settings: Settings, repo: str, revision: str | None, *, weights: bool) -> HubFetch:
    """Pin what a revision of a hub model means now, and fetch its files to this machine, with its weights or not."""
    settings.hub.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="burnish-fetch-") as scratch:
        output = Path(scratch) / "fetch.json"
        arguments = (repo, revision or "", str(settings.hub), str(output), "weights" if weights else "files")
        environment = trainer_environment(settings, Path(scratch), hub=True, gpu=False)
        problem = _run_program((*FETCH_COMMAND, *arguments), Path(scratch), environment, None)
        if problem is None:
            return HubFetch.model_validate_json(output.read_bytes())
        return HubFetch(problem=f"{repo} could not be fetched from the hub: {problem}")


def store_look(session: Session, context: Context, entry: BaseModelEntry, findings: BaseFindings) -> str | None:
    """Keep what a look at the files found, beside what is kept of the base; return what is wrong with it now."""
    row = repository.find_base_row(session, entry.id)
    if row is None or row.fingerprint != entry.fingerprint:
        if findings.problem is not None:
            repository.store_findings(session, entry, files=None, card=None, problem=findings.problem)
        return findings.problem
    problem = findings.problem or explain_change(entry, row, findings.files)
    # In a cluster another machine may have what this one lacks.
    if findings.problem is not None and row.card is not None and context.settings.database_url is not None:
        _log.warning("%s, which another machine of the service has", findings.problem)
        return None
    repository.store_problem(session, entry.id, problem)
    return problem


def explain_change(entry: BaseModelEntry, row: BaseModelRow | None, files: Mapping[str, str] | None) -> str | None:
    """Return the sentence for a folder that has changed since it was first seen, None if it has not."""
    if row is None or row.files is None or files is None or row.fingerprint != entry.fingerprint:
        return None
    changed_files = list_changed_files(row.files, files)
    if not changed_files:
        return None
    more = f" and {len(changed_files) - 4} more" if len(changed_files) > 4 else ""
    return (
        f"The base model {entry.id} in {entry.place} has changed since it was added ({', '.join(changed_files[:4])}"
        f"{more}), and what was trained on it goes with the files as they were. Put those back, or add the changed "
        f"folder under another id: `burnish-server models add {entry.place} --id NEW`. If nothing was trained on it, "
        f"`burnish-server models add {entry.place} --id {entry.id} --replace` takes the files as they are now."
    )


def needs_card(row: BaseModelRow | None, entry: BaseModelEntry) -> bool:
    """Return whether the trainer has not looked at this base yet."""
    return row is None or row.fingerprint != entry.fingerprint or row.card is None


def _run_inspection(
    settings: Settings, source: dict[str, Any], place: str, command: Sequence[str], stop: threading.Event | None
) -> Inspection:
    with tempfile.TemporaryDirectory(prefix="burnish-inspect-") as scratch:
        folder = Path(scratch)
        (folder / "source.json").write_text(json.dumps(source), encoding="utf-8")
        arguments = (str(folder / "source.json"), str(folder / "inspection.json"), place)
        environment = trainer_environment(settings, folder, gpu=False)
        problem = _run_program((*_NICENESS, *command, *arguments), folder, environment, stop)
        if problem is None:
            return Inspection.model_validate_json((folder / "inspection.json").read_bytes())
        return Inspection(problem=f"The base model in {place} could not be inspected: {problem}")


def _run_program(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], stop: threading.Event | None
) -> str | None:
    """Run a program of the trainer to its end; return its last line if it failed. Raises WorkerStopping."""
    child = WorkerChild(command, folder=folder, log_file=folder / "program.log", environment=environment)
    try:
        while (status := child.wait(_POLL_SECONDS)) is None:
            if stop is not None and stop.is_set():
                raise WorkerStopping
    except BaseException:
        child.kill()
        raise
    child.close()
    if status == ExitCode.DONE:
        return None
    tail = child.tail()
    _log.error("%s ended with status %s:\n%s", command[-1], status, tail)
    return (tail.splitlines() or ["its program said nothing"])[-1][:500]
