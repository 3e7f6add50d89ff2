"""What commands print: tables for people, JSON for machines, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import click

from burnish._text import escape_json, printable_text

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.table import Table

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
limit_option = click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many to show."
)


def print_json(value: BaseModel | Sequence[BaseModel] | dict[str, Any], *, compact: bool = False) -> None:
    """Print JSON to stdout; `compact` on one line."""
    plain: Any = value if isinstance(value, dict) else _dump_models(value)
    click.echo(escape_json(json.dumps(plain, ensure_ascii=False, indent=None if compact else 2)))


def print_line(line: str, *, err: bool = False, nl: bool = True) -> None:
    """Print text to stdout, or to stderr, without control characters: whatever a server says comes through here."""
    click.echo(printable_text(line), err=err, nl=nl)


def print_content(content: bytes) -> None:
    """Print a file's content: byte for byte into a pipe or a file, without control characters on a terminal."""
    if sys.stdout.isatty():
        print_line(content.decode("utf-8", "replace"), nl=False)
    else:
        sys.stdout.buffer.write(content)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to stdout; ids are never cut."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column == "id", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell_text(cell)) for cell in row))
    _print_rich_table(table)


def print_object(item: BaseModel) -> None:
    """Print an object's fields that say something, one a line."""
    values = {name: value for name, value in item.model_dump(mode="json").items() if value not in (None, [], {})}
    print_fields(values)


def print_fields(values: dict[str, Any], prefix: str = "") -> None:
    """Print nested values as `name.name: value` lines; lists of objects by their count."""
    for name, value in values.items():
        items = cast("list[Any]", value) if isinstance(value, list) else []
        if isinstance(value, dict):
            print_fields(cast("dict[str, Any]", value), f"{prefix}{name}.")
        elif any(isinstance(item, (dict, list)) for item in items):
            print_line(f"{prefix}{name}: {len(items)} items")
        elif name.endswith("_at") and isinstance(value, int):
            print_line(f"{prefix}{name}: {format_time(value)}")
        else:
            text = ", ".join(map(cell_text, items)) if isinstance(value, list) else cell_text(value)
            print_line(f"{prefix}{name}: {text}")


def cell_text(value: object) -> str:
    """Return a cell's text; nothing for None."""
    return "" if value is None else printable_text(str(value))


def format_time(seconds: int) -> str:
    """Return a time of the wire (seconds since 1970) in the reader's zone."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def format_bytes(count: int) -> str:
    """Return a number of bytes as `1.2 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


@contextmanager
def transfer_bar(label: str) -> Generator[Callable[[int, int | None], None], None, None]:
    """Show a bar on stderr, on a terminal only; yields the function that updates it with (done, total) bytes."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(printable_text(label), total=None)

        def update_bar(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        yield update_bar


def _dump_models(value: BaseModel | Sequence[BaseModel]) -> Any:
    if isinstance(value, Sequence):
        return [item.model_dump(mode="json") for item in value]
    return value.model_dump(mode="json")


def _print_rich_table(table: Table) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=1000)  # into a pipe or a file, lines are as long as they are
    with console.capture() as capture:
        console.print(table)
    click.echo(capture.get(), nl=False)
