"""`burnish jobs`: create, watch, stop and download."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from burnish.cli.completion import complete_jobs
from burnish.cli.connection import connect_client
from burnish.cli.job_options import order_options
from burnish.cli.orders import JobSubmission
from burnish.cli.output import (
    format_time,
    json_option,
    limit_option,
    print_content,
    print_fields,
    print_json,
    print_line,
    print_object,
    print_table,
    transfer_bar,
)
from burnish.cli.preview import await_preview, print_preview
from burnish.cli.watching import watch_job
from burnish.errors import ConflictError

if TYPE_CHECKING:
    pass

job_argument = click.argument("job_id", shell_complete=complete_jobs)


@click.group()
def jobs() -> None:
    """Order training runs, follow them, fetch what comes of them."""


@jobs.command()
@order_options
@click.option("--watch", "watched", is_flag=True, help="Follow the job to its end.")
@json_option
def create(watched: bool, as_json: bool, **options: Any) -> None:
    """Order a training run."""
    order = JobSubmission(options)
    with connect_client() as client:
        with order.upload_files(client) as arguments:
            job = client.jobs.create(**arguments)
        if watched:
            watch_job(client, job.id, as_json)
            return
    print_json(job) if as_json else print_line(job.id)


@jobs.command()
@order_options
@click.option("--rows", type=click.IntRange(0, 50), default=3, show_default=True, help="Rows to show as tokens.")
@json_option
def preview(rows: int, as_json: bool, **options: Any) -> None:
    """Tell what a job would come to, and create none: tokens, masks, time, memory, its place in the queue."""
    order = JobSubmission(options)
    with connect_client() as client, order.upload_files(client) as arguments:
        job_preview = await_preview(client, rows, arguments)
    if as_json:
        print_json(job_preview)
        return
    print_preview(job_preview, training_file=arguments["training_file"])


@jobs.command("list")
@limit_option
@json_option
def list_(limit: int, as_json: bool) -> None:
    """List jobs, newest first."""
    with connect_client() as client:
        page = list(islice(client.jobs.list(limit=min(limit, 100)), limit))
    if as_json:
        print_json(page)
    else:
        rows = [(j.id, j.phase or j.status, j.model, format_time(j.created_at), j.fine_tuned_model) for j in page]
        print_table(("id", "state", "model", "created", "fine-tuned model"), rows)


@jobs.command()
@job_argument
@json_option
def get(job_id: str, as_json: bool) -> None:
    """Show a job as it is now."""
    with connect_client() as client:
        job = client.jobs.retrieve(job_id)
    print_json(job) if as_json else print_object(job)


@jobs.command()
@job_argument
@json_option
def watch(job_id: str, as_json: bool) -> None:
    """Follow a job to its end; with --json, one event a line and the job last."""
    with connect_client() as client:
        watch_job(client, job_id, as_json)


@jobs.command()
@job_argument
@json_option
def cancel(job_id: str, as_json: bool) -> None:
    """Stop a job for good."""
    with connect_client() as client:
        job = client.jobs.cancel(job_id)
    print_json(job) if as_json else print_line(f"{job.id}: {job.phase or job.status}")


@jobs.command()
@job_argument
@json_option
def pause(job_id: str, as_json: bool) -> None:
    """Pause a job at a checkpoint, and free its worker."""
    with connect_client() as client:
        job = client.jobs.pause(job_id)
    coming = ", to be paused at its next checkpoint" if job.pause_requested else ""
    print_json(job) if as_json else print_line(f"{job.id}: {job.phase or job.status}{coming}")


@jobs.command()
@job_argument
@json_option
def resume(job_id: str, as_json: bool) -> None:
    """Continue a paused job from its last checkpoint."""
    with connect_client() as client:
        job = client.jobs.resume(job_id)
    print_json(job) if as_json else print_line(f"{job.id}: {job.phase or job.status}")


@jobs.command()
@job_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def delete(job_id: str, yes: bool, as_json: bool) -> None:
    """Delete an ended job with its checkpoints, results and model."""
    if not yes:
        click.confirm(f"Delete {job_id} with its checkpoints, results and model?", abort=True, err=True)
    with connect_client() as client:
        deletion = client.jobs.delete(job_id)
    print_json(deletion) if as_json else print_line(f"{deletion.id}: deleted")


@jobs.command()
@job_argument
@limit_option
@json_option
def events(job_id: str, limit: int, as_json: bool) -> None:
    """List a job's events, newest first."""
    with connect_client() as client:
        job_events = list(islice(client.jobs.events(job_id, limit=min(limit, 100)), limit))
    if as_json:
        print_json(job_events)
    else:
        print_table(("time", "level", "message"), [(format_time(e.created_at), e.level, e.message) for e in job_events])


@jobs.command()
@job_argument
@limit_option
@json_option
def checkpoints(job_id: str, limit: int, as_json: bool) -> None:
    """List a job's checkpoints, newest first."""
    with connect_client() as client:
        job_checkpoints = list(islice(client.jobs.checkpoints(job_id, limit=min(limit, 100)), limit))
    if as_json:
        print_json(job_checkpoints)
        return
    rows = [
        (
            c.id,
            c.step_number,
            c.metrics.get("train_loss"),
            c.metrics.get("valid_loss"),
            c.fine_tuned_model_checkpoint,
        )
        for c in job_checkpoints
    ]
    print_table(("id", "step", "train loss", "valid loss", "model"), rows)


@jobs.command()
@job_argument
@click.option("--html", "as_html", is_flag=True, help="The report as an HTML page.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write here (HTML if it ends so).")
@json_option
def report(job_id: str, as_html: bool, output: Path | None, as_json: bool) -> None:
    """Show a job's report, or write it to a file."""
    with connect_client() as client:
        if as_html or (output is not None and output.suffix in (".html", ".htm")):
            page = client.jobs.report_html(job_id)
            print_content(f"{page}\n".encode()) if output is None else _write_output(output, page)
            return
        facts = client.jobs.report(job_id)
    if output is not None:
        _write_output(output, json.dumps(facts, ensure_ascii=False, indent=2))
    elif as_json:
        print_json(facts)
    else:
        print_fields(facts)


@jobs.command()
@job_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path(), help="A file or a folder.")
@click.option("--extract", is_flag=True, help="Unpack it as the new folder OUTPUT.")
def download(job_id: str, output: Path, extract: bool) -> None:
    """Download a job's adapter, or the whole model if it trained all weights, checked by its hash."""
    with connect_client() as client, transfer_bar(job_id) as tell:
        try:
            place = Path(f"{job_id}-adapter") if extract and output == Path() else output
            path = client.jobs.download_adapter(job_id, place, extract=extract, on_progress=tell)
        except ConflictError as error:
            if error.code != "no_adapter":
                raise
            place = Path(f"{job_id}-model") if extract and output == Path() else output
            path = client.jobs.download_model(job_id, place, extract=extract, on_progress=tell)
    print_line(str(path))


def _write_output(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
    print_line(str(path))
