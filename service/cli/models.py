"""`burnish-server models`: base models that are added, checked, listed and removed while the service runs."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.cli.database import open_database
from service.cli.errors import CommandFailed

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from service.catalog import BaseModelEntry
    from service.kit.settings import Settings
    from service.staging.base_checks import BaseFindings

_HUB_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+"
_COMMIT = r"[0-9a-f]{40}"
_ID = r"[a-z0-9][a-z0-9._-]{0,63}"
_MOST_TEMPLATE_BYTES = 1 << 20
_SOURCE = click.argument("source", metavar="HUB-ID|FOLDER")
_REVISION = click.option("--revision", help="A branch, tag or commit of a model of the hub; by default, main.")
_TEMPLATE = click.option(
    "--chat-template",
    "template_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A Jinja file to use instead of the model's own chat template.",
)


@click.group()
def models() -> None:
    """Add, check, list and remove base models. Running services see a change within seconds."""


@models.command("add")
@_SOURCE
@click.option("--id", "base_id", metavar="ID", help="Its name in requests; by default, made of the source's name.")
@_REVISION
@_TEMPLATE
@click.option("--license", "license_name", default="", help="Noted beside it.")
@click.option("--replace", is_flag=True, help="Take the place of a base of this id on which nothing was trained.")
def add_base(
    source: str, base_id: str | None, revision: str | None, template_file: Path | None, license_name: str, replace: bool
) -> None:
    """Check a base model, print what it can do, and let jobs start from it.

    HUB-ID is owner/name of the Hugging Face hub (with HF_TOKEN and HF_ENDPOINT if they are set), pinned to the commit
    that its revision means now. FOLDER is in Hugging Face's layout and stays where it is: the workers read it there.
    """
    from service.audit.service import record_operator
    from service.bases import repository
    from service.catalog import load_catalog

    with open_database() as (database, settings):
        entry = _draft_entry(source, base_id, template_file, license_name)
        taken_ids = {base.id for base in load_catalog(settings.catalog).models}
        with database.read() as session:
            _require_free_id(session, entry.id, taken_ids, replace=replace)
        entry, findings = _inspect_source(settings, entry, source, revision, weights=True)
        if findings.problem is not None:
            raise CommandFailed(findings.problem)
        entry = entry.model_copy(update={"files_sha256": _hash_files(findings), "created": int(time.time())})
        with database.write() as session:
            # Again: the check took a while.
            _require_free_id(session, entry.id, taken_ids, replace=replace)
            repository.store_findings(session, entry, files=findings.files, card=findings.card, problem=None, add=True)
            record_operator(session, "base_model.added", object_id=entry.id)
    _print_card(entry, findings)
    click.echo(f"\nAdded as {entry.id}. Jobs may start from it now.")


@models.command("check")
@_SOURCE
@_REVISION
@_TEMPLATE
def check_base(source: str, revision: str | None, template_file: Path | None) -> None:
    """Check a base model and print what it can do; nothing is stored. Of the hub, weights are not fetched."""
    from service.kit.settings import load_settings

    entry = _draft_entry(source, None, template_file, "")
    entry, findings = _inspect_source(load_settings(), entry, source, revision, weights=False)
    if findings.problem is not None:
        raise CommandFailed(findings.problem)
    _print_card(entry, findings)


@models.command("list")
def list_bases() -> None:
    """List all base models: id, where from, and whether jobs may start from it."""
    from service.bases import repository
    from service.bases.live_catalog import LiveCatalog
    from service.catalog import load_catalog

    with open_database() as (database, settings):
        bases = LiveCatalog(load_catalog(settings.catalog), database).models
        with database.read() as session:
            rows = {entry.id: repository.find_base_row(session, entry.id) for entry in bases}
    for entry in bases:
        row = rows[entry.id]
        is_checked = row is not None and row.fingerprint == entry.fingerprint
        standing = (row.problem or "ready") if row is not None and is_checked else "not checked yet"
        origin = "added" if row is not None and row.entry is not None else "catalog file"
        click.echo(f"{entry.id}\t{entry.place}\t{origin}\t{standing}")


@models.command("remove")
@click.argument("base_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask, though models were trained on it.")
def remove_base(base_id: str, yes: bool) -> None:
    """Remove a base model that was added. Its files stay, and so do models that were trained on it, without use."""
    from service.audit.service import record_operator
    from service.bases import repository
    from service.catalog import load_catalog
    from service.models.repository import count_models_on

    with open_database() as (database, settings):
        with database.read() as session:
            row = repository.find_base_row(session, base_id)
            users = count_models_on(session, base_id)
        if row is None or row.entry is None:
            if load_catalog(settings.catalog).find_base(base_id) is not None:
                raise CommandFailed(
                    f"{base_id} is named by the catalog file ({settings.catalog or 'the one of the package'}): take it "
                    "out there, and start the service again."
                )
            raise CommandFailed(f"There is no base model {base_id}; `burnish-server models list` shows all.")
        if users and not yes:
            click.confirm(
                f"{users} model(s) or job(s) lie on {base_id} and cannot be used without it. Remove it?", abort=True
            )
        with database.write() as session:
            repository.delete_base_row(session, base_id)
            record_operator(session, "base_model.removed", object_id=base_id)
    click.echo(f"{base_id} is removed.")


def _draft_entry(source: str, base_id: str | None, template_file: Path | None, license_name: str) -> BaseModelEntry:
    """Return the base as far as it is known before anything is fetched. Raises CommandFailed."""
    from service.catalog import BaseModelEntry, CatalogFolderSource, CatalogHubSource

    folder = Path(source).expanduser()
    name = source.rpartition("@")[0] or source
    if folder.exists() or not re.fullmatch(_HUB_NAME, name) or source.startswith("."):
        place = CatalogFolderSource(kind="folder", path=folder.resolve())
        name = folder.resolve().name
    else:
        place = CatalogHubSource(kind="hf", repo=name, revision="0" * 40)
        name = name.rpartition("/")[2]
    base_id = _make_id(name) if base_id is None else base_id
    if not re.fullmatch(_ID, base_id):
        raise CommandFailed(
            f"{base_id!r} cannot be the id of a base model: use 1 to 64 small letters, digits, . _ and -, with --id."
        )
    return BaseModelEntry(id=base_id, source=place, license=license_name, chat_template=_read_template(template_file))


def _make_id(name: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:64] or "base"


def _read_template(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
    except OSError as error:
        raise CommandFailed(f"--chat-template {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CommandFailed(f"--chat-template {path} is not text in UTF-8.") from error
    if not text.strip() or len(content) > _MOST_TEMPLATE_BYTES:
        raise CommandFailed(f"--chat-template {path} is empty or larger than 1 MiB: name a Jinja file.")
    return text


def _inspect_source(
    settings: Settings, entry: BaseModelEntry, source: str, revision: str | None, *, weights: bool
) -> tuple[BaseModelEntry, BaseFindings]:
    """Fetch the base if it is on the hub, check it and describe it. Raises CommandFailed."""
    from service.catalog import CatalogHubSource
    from service.cli.checks import check_packages
    from service.staging.base_checks import BaseFindings, fetch_from_hub, inspect_base, inspect_folder_files

    check_packages()
    place = entry.source
    if not isinstance(place, CatalogHubSource):
        if revision is not None:
            raise CommandFailed(f"--revision is for models of the hub; {entry.place} is a folder.")
        return entry, inspect_base(settings, entry)
    revision = revision or (source.rpartition("@")[2] if "@" in source else None)
    click.echo(f"Fetching {place.repo} from the hub …", err=True)
    fetch = fetch_from_hub(settings, place.repo, revision, weights=weights)
    if fetch.folder is None or fetch.revision is None:
        raise CommandFailed(fetch.problem or f"{place.repo} could not be fetched from the hub.")
    pinned_entry = entry.model_copy(update={"source": place.model_copy(update={"revision": fetch.revision})})
    if weights:
        return pinned_entry, inspect_base(settings, pinned_entry)
    inspection = inspect_folder_files(settings, pinned_entry, fetch.folder)
    return pinned_entry, BaseFindings(card=inspection.card, problem=inspection.problem)


def _require_free_id(session: Session, base_id: str, taken_ids: set[str], *, replace: bool) -> None:
    """Raise CommandFailed if the id is another base's, unless that may be replaced and nothing was trained on it."""
    from service.bases import repository
    from service.models.repository import count_models_on

    row = repository.find_base_row(session, base_id)
    if base_id not in taken_ids and (row is None or row.entry is None):
        return
    if not replace:
        raise CommandFailed(
            f"There is a base model {base_id} already: choose another name with --id, or take its place with --replace."
        )
    users = count_models_on(session, base_id)
    if users:
        raise CommandFailed(
            f"{users} model(s) or job(s) lie on the base model {base_id}, and would not fit another one: choose "
            "another name with --id, or delete them first."
        )


def _hash_files(findings: BaseFindings) -> str | None:
    if findings.files is None:
        return None
    return hashlib.sha256(json.dumps(findings.files, sort_keys=True).encode()).hexdigest()


def _print_card(entry: BaseModelEntry, findings: BaseFindings) -> None:
    from service.cli.base_card import describe_card

    card = findings.card
    assert card is not None
    for line in describe_card(entry, card):
        click.echo(line)
