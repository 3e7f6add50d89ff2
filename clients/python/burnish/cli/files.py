"""`burnish files`: upload, list, download and delete."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from burnish.cli.completion import complete_files
from burnish.cli.connection import connect_client
from burnish.cli.output import (
    format_bytes,
    format_time,
    json_option,
    limit_option,
    print_content,
    print_json,
    print_line,
    print_object,
    print_table,
    transfer_bar,
)

if TYPE_CHECKING:
    from burnish.client import Burnish
    from burnish.schemas import File


@click.group()
def files() -> None:
    """Upload datasets, read results."""


@files.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--purpose", default="fine-tune", show_default=True, help="What the file is for.")
@click.option("--resume", metavar="ID", help="The interrupted upload: only what is missing is sent.")
@json_option
def upload(path: Path, purpose: str, resume: str | None, as_json: bool) -> None:
    """Upload the file PATH. One of 64 MiB or more goes in parts."""
    with connect_client() as client:
        if resume is None:
            file = upload_with_progress(client, path, purpose)
        else:
            with transfer_bar(path.name) as tell:
                file = client.uploads.send(resume, file=path, on_progress=tell)
    print_json(file) if as_json else print_line(file.id)


def upload_with_progress(client: Burnish, path: Path, purpose: str = "fine-tune") -> File:
    """Upload with a progress bar."""
    with transfer_bar(path.name) as tell:
        return client.files.create(file=path, purpose=purpose, on_progress=tell)


@files.command("list")
@click.option("--purpose", help="Only files for this purpose.")
@limit_option
@json_option
def list_(purpose: str | None, limit: int, as_json: bool) -> None:
    """List files, newest first."""
    with connect_client() as client:
        page = list(islice(client.files.list(purpose=purpose, limit=min(limit, 1000)), limit))
    if as_json:
        print_json(page)
    else:
        rows = [(f.id, f.filename, format_bytes(f.bytes), f.purpose, format_time(f.created_at)) for f in page]
        print_table(("id", "name", "size", "purpose", "created"), rows)


@files.command()
@click.argument("file_id", shell_complete=complete_files)
@json_option
def get(file_id: str, as_json: bool) -> None:
    """Show one file's facts."""
    with connect_client() as client:
        file = client.files.retrieve(file_id)
    print_json(file) if as_json else print_object(file)


@files.command()
@click.argument("file_id", shell_complete=complete_files)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write here instead of to stdout.")
def content(file_id: str, output: Path | None) -> None:
    """Print a file's content, or write it to a file."""
    with connect_client() as client:
        if output is None:
            print_content(client.files.content(file_id))
            return
        with transfer_bar(file_id) as tell:
            print_line(str(client.files.download(file_id, output, on_progress=tell)))


@files.command()
@click.argument("file_id", shell_complete=complete_files)
@json_option
def delete(file_id: str, as_json: bool) -> None:
    """Delete a file from the server."""
    with connect_client() as client:
        deletion = client.files.delete(file_id)
    print_json(deletion) if as_json else print_line(f"Deleted {deletion.id}.")
