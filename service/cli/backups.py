"""`burnish-server backup` and `restore`: one file that holds everything of the embedded set-up."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_data = click.option("--data", type=_FOLDER, help="The data folder; else BURNISH_DATA or ./.burnish.")


@click.command()
@click.argument("file", type=_FILE)
@_data
def backup(file: Path, data: Path | None) -> None:
    """Write everything of the data folder to FILE, a tar: database, blobs, secrets. The service may run meanwhile.

    Whoever has FILE has every dataset, model and secret: only you may read it, keep it so.
    """
    from service.backups.make import make_backup, require_embedded, total_bytes
    from service.kit.settings import load_settings

    if data is not None:
        os.environ["BURNISH_DATA"] = str(data)
    settings = load_settings()
    require_embedded(settings)
    with _show_progress("Backing up", lambda: total_bytes(settings)) as advance:
        summary = make_backup(settings, file.absolute(), advance)
    click.echo(f"{file}: {summary.blobs} blobs and the database, {summary.bytes} bytes.")
    if settings.secret_key is not None:
        click.echo("BURNISH_SECRET_KEY is not in it: keep that yourself, API keys are valid with it alone.", err=True)
    if summary.missing:
        absent_keys = ", ".join(summary.missing[:3])
        click.echo(f"Warning: the store has lost {len(summary.missing)} blobs before this: {absent_keys} …", err=True)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@_data
def restore(file: Path, data: Path | None) -> None:
    """Fill an empty data folder from FILE. Every hash is checked before the folder is put in its place."""
    from service.backups.restore import restore_backup
    from service.kit.settings import load_settings

    if data is not None:
        os.environ["BURNISH_DATA"] = str(data)
    folder = load_settings().data
    with _show_progress("Restoring", lambda: file.stat().st_size) as advance:
        manifest = restore_backup(file, folder, advance)
    backup_time = datetime.fromtimestamp(manifest.created_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    click.echo(f"{folder} is as it was at {backup_time}. Start it by: burnish-server up --data {folder}")
    click.echo("Jobs that ran then resume from their last checkpoints. The original service must no longer run.")


@contextmanager
def _show_progress(label: str, total: Callable[[], int]) -> Generator[Callable[[int], None]]:
    """Show a bar on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _bytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(label), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total())
        yield lambda count: bar.advance(task, count)
