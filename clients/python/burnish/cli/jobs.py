"""`burnish jobs`."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from burnish.cli.connection import connect
from burnish.cli.files import send
from burnish.cli.hyperparameters import pack
from burnish.cli.job_options import order_options, pack_limits
from burnish.cli.output import (
    json_option,
    limit_option,
    print_fields,
    print_json,
    print_object,
    print_table,
    transfer_bar,
    when,
)
from burnish.cli.preview import print_preview
from burnish.errors import ConflictError, JobFailed
from burnish.progress import JobProgress

if TYPE_CHECKING:
    from burnish.client import Burnish
    from burnish.schemas import CreateJob, Job


@click.group()
def jobs() -> None:
    """Order training runs, follow them, fetch what comes of them."""


@jobs.command()
@order_options
@click.option("--watch", "watched", is_flag=True, help="Follow the job to its end.")
@json_option
def create(watched: bool, as_json: bool, **options: Any) -> None:
    """Order a training run."""
    with connect() as client:
        job = client.jobs.create(**_order(client, options))
        if watched:
            _watch(client, job.id, as_json)
            return
    print_json(job) if as_json else click.echo(job.id)


@jobs.command()
@order_options
@click.option("--rows", type=click.IntRange(0, 50), default=3, show_default=True, help="Rows to show as tokens.")
@json_option
def preview(rows: int, as_json: bool, **options: Any) -> None:
    """Tell what a job would come to, and create none: tokens, masks, time, memory, its place in the queue."""
    with connect() as client:
        order = _order(client, options)
        found = client.jobs.preview(rows=rows, **order)
    if as_json:
        print_json(found)
        return
    print_preview(found, training_file=order["training_file"])


@jobs.command("list")
@limit_option
@json_option
def list_(limit: int, as_json: bool) -> None:
    """List jobs, newest first."""
    with connect() as client:
        found = list(islice(client.jobs.list(limit=min(limit, 100)), limit))
    if as_json:
        print_json(found)
    else:
        rows = [(j.id, j.phase or j.status, j.model, when(j.created_at), j.fine_tuned_model) for j in found]
        print_table(("id", "state", "model", "created", "fine-tuned model"), rows)


@jobs.command()
@click.argument("job_id")
@json_option
def get(job_id: str, as_json: bool) -> None:
    """Show a job as it is now."""
    with connect() as client:
        job = client.jobs.retrieve(job_id)
    print_json(job) if as_json else print_object(job)


@jobs.command()
@click.argument("job_id")
@json_option
def watch(job_id: str, as_json: bool) -> None:
    """Follow a job to its end; with --json, one event a line and the job last."""
    with connect() as client:
        _watch(client, job_id, as_json)


@jobs.command()
@click.argument("job_id")
@json_option
def cancel(job_id: str, as_json: bool) -> None:
    """Stop a job."""
    with connect() as client:
        job = client.jobs.cancel(job_id)
    print_json(job) if as_json else click.echo(f"{job.id}: {job.phase or job.status}")


@jobs.command()
@click.argument("job_id")
@json_option
def pause(job_id: str, as_json: bool) -> None:
    """Let a job stand still at a checkpoint, and free its worker."""
    with connect() as client:
        job = client.jobs.pause(job_id)
    coming = ", to be paused at its next checkpoint" if job.pause_requested else ""
    print_json(job) if as_json else click.echo(f"{job.id}: {job.phase or job.status}{coming}")


@jobs.command()
@click.argument("job_id")
@json_option
def resume(job_id: str, as_json: bool) -> None:
    """Let a paused job go on from where it was."""
    with connect() as client:
        job = client.jobs.resume(job_id)
    print_json(job) if as_json else click.echo(f"{job.id}: {job.phase or job.status}")


@jobs.command()
@click.argument("job_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def delete(job_id: str, yes: bool, as_json: bool) -> None:
    """Delete an ended job with its checkpoints, results and model."""
    if not yes:
        click.confirm(f"Delete {job_id} with its checkpoints, results and model?", abort=True, err=True)
    with connect() as client:
        deleted = client.jobs.delete(job_id)
    print_json(deleted) if as_json else click.echo(f"{deleted.id}: deleted")


@jobs.command()
@click.argument("job_id")
@limit_option
@json_option
def events(job_id: str, limit: int, as_json: bool) -> None:
    """List a job's events, newest first."""
    with connect() as client:
        found = list(islice(client.jobs.events(job_id, limit=min(limit, 100)), limit))
    if as_json:
        print_json(found)
    else:
        print_table(("time", "level", "message"), [(when(e.created_at), e.level, e.message) for e in found])


@jobs.command()
@click.argument("job_id")
@limit_option
@json_option
def checkpoints(job_id: str, limit: int, as_json: bool) -> None:
    """List a job's checkpoints, newest first."""
    with connect() as client:
        found = list(islice(client.jobs.checkpoints(job_id, limit=min(limit, 100)), limit))
    if as_json:
        print_json(found)
        return
    rows = [
        (
            c.id,
            c.step_number,
            c.metrics.get("train_loss"),
            c.metrics.get("valid_loss"),
            c.fine_tuned_model_checkpoint,
        )
        for c in found
    ]
    print_table(("id", "step", "train loss", "valid loss", "model"), rows)


@jobs.command()
@click.argument("job_id")
@click.option("--html", "as_html", is_flag=True, help="The report as an HTML page.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write here (HTML where it ends so).")
@json_option
def report(job_id: str, as_html: bool, output: Path | None, as_json: bool) -> None:
    """Show a job's report, or write it to a file."""
    with connect() as client:
        if as_html or (output is not None and output.suffix in (".html", ".htm")):
            page = client.jobs.report_html(job_id)
            click.echo(page) if output is None else _write(output, page)
            return
        facts = client.jobs.report(job_id)
    if output is not None:
        _write(output, json.dumps(facts, ensure_ascii=False, indent=2))
    elif as_json:
        print_json(facts)
    else:
        print_fields(facts)


@jobs.command()
@click.argument("job_id")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path(), help="A file or a folder.")
@click.option("--extract", is_flag=True, help="Unpack it as the new folder OUTPUT.")
def download(job_id: str, output: Path, extract: bool) -> None:
    """Download a job's adapter, or the whole model where it trained all weights, checked by its hash."""
    with connect() as client, transfer_bar(job_id) as tell:
        try:
            place = Path(f"{job_id}-adapter") if extract and output == Path() else output
            path = client.jobs.download_adapter(job_id, place, extract=extract, on_progress=tell)
        except ConflictError as error:
            if error.code != "no_adapter":
                raise
            place = Path(f"{job_id}-model") if extract and output == Path() else output
            path = client.jobs.download_model(job_id, place, extract=extract, on_progress=tell)
    click.echo(path)


def _watch(client: Burnish, job_id: str, as_json: bool) -> None:
    if as_json:
        with client.jobs.stream(job_id) as stream:
            for event in stream:
                print_json(event, compact=True)
        job = stream.job
    else:
        with JobProgress() as progress:
            job = client.jobs.wait(job_id, on_event=progress, raise_on_failure=False)
    assert job is not None
    if as_json:
        print_json(job, compact=True)
    if job.status != "succeeded":
        raise JobFailed(job=job)
    if not as_json:
        click.echo(_summary(job))


def _summary(job: Job) -> str:
    tokens = f", {job.trained_tokens:,} tokens trained" if job.trained_tokens else ""
    return f"{job.id} succeeded: {job.fine_tuned_model}{tokens}"


def _order(client: Burnish, options: dict[str, Any]) -> CreateJob:
    """Return the arguments of an order; files that are paths are uploaded."""
    options["hyperparameters"] = pack(options)
    options["metadata"] = dict(_pair(item) for item in options["metadata"]) or None
    pack_limits(options)
    files = {name: _existing(options[name]) for name in ("training_file", "validation_file")}
    for name, item in files.items():
        options[name] = send(client, item).id if isinstance(item, Path) else item
    return cast("CreateJob", options)


def _existing(value: str | None) -> Path | str | None:
    """Tell a path from an id. Raises a usage error for what is neither."""
    if value is None:
        return None
    if Path(value).is_file():
        return Path(value)
    if value.startswith("file-") and "/" not in value:
        return value
    raise click.BadParameter(f"{value!r} is neither a file here nor a file's id (file-…).")


def _pair(item: str) -> tuple[str, str]:
    name, sign, value = item.partition("=")
    if not (name and sign):
        raise click.BadParameter(f"{item!r} must be NAME=VALUE.", param_hint="--metadata")
    return name, value


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
    click.echo(path)
