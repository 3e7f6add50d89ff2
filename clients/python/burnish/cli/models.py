"""`burnish models`: list, delete, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from burnish._download import filename_of
from burnish.cli.completion import complete_models
from burnish.cli.connection import connect_client
from burnish.cli.output import format_bytes, format_time, json_option, print_json, print_line, print_table, transfer_bar

if TYPE_CHECKING:
    from burnish.schemas import ModelExport


@click.group()
def models() -> None:
    """Show the models that can be tuned, and tuned ones."""


@models.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List bases and the outcomes of jobs."""
    with connect_client() as client:
        page = list(client.models.list())
    if as_json:
        print_json(page)
    else:
        print_table(("id", "owned by"), [(model.id, model.owned_by) for model in page])


@models.command()
@click.argument("model", shell_complete=complete_models)
@json_option
def delete(model: str, as_json: bool) -> None:
    """Delete the outcome of a job."""
    with connect_client() as client:
        deletion = client.models.delete(model)
    print_json(deletion) if as_json else print_line(f"Deleted {deletion.id}.")


@models.command()
@click.argument("model", shell_complete=complete_models)
@click.option("--format", required=True, type=click.Choice(["adapter", "merged", "gguf"]), help="What to make of it.")
@click.option(
    "--precision",
    type=click.Choice(["f32", "f16", "bf16", "q8_0"]),
    help="Of the weights: by default bf16 for merged, f16 for gguf; q8_0 is for gguf alone.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path(), help="A file or a folder.")
@click.option("--extract", is_flag=True, help="Unpack the zip of adapter or merged as the new folder OUTPUT.")
@json_option
def export(model: str, output: Path, extract: bool, as_json: bool, **options: Any) -> None:
    """Have a tuned model (or ft:…:ckpt-step-N) exported, and download it, checked by its hash."""
    with connect_client() as client:
        printer = _ExportStatusPrinter()
        model_export = client.models.exports.create_and_wait(model, on_status=printer, **options)
        with transfer_bar(model_export.filename) as tell:
            place = Path(Path(filename_of(model_export.filename, "")).stem) if extract and output == Path() else output
            path = client.models.exports.download(model, model_export.id, place, extract=extract, on_progress=tell)
    print_json({**model_export.model_dump(mode="json"), "path": str(path)}) if as_json else print_line(str(path))


@models.command()
@click.argument("model", shell_complete=complete_models)
@json_option
def exports(model: str, as_json: bool) -> None:
    """List the exports of a tuned model."""
    with connect_client() as client:
        model_exports = list(client.models.exports.list(model))
    if as_json:
        print_json(model_exports)
        return
    rows = [(e.id, e.format, e.precision, e.status, _format_export_size(e), _format_expiry(e)) for e in model_exports]
    print_table(("id", "format", "precision", "status", "size", "kept until"), rows)


class _ExportStatusPrinter:
    """Prints on stderr what an export waits for, once a status."""

    def __init__(self) -> None:
        self._status = ""

    def __call__(self, export: ModelExport) -> None:
        if export.status == self._status:
            return
        self._status = export.status
        words = {
            "queued": "waits for a worker",
            "running": "is being made",
            "ready": f"is ready, {_format_export_size(export)}",
        }
        if export.status in words:
            print_line(f"{export.id} {words[export.status]}", err=True)


def _format_export_size(export: ModelExport) -> str:
    return "" if export.bytes is None else format_bytes(export.bytes)


def _format_expiry(export: ModelExport) -> str:
    return "" if export.expires_at is None else format_time(export.expires_at)
