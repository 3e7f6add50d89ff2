"""`burnish data`: datasets are checked and converted here, without a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import click

from burnish.cli.output import json_option, print_json, print_line, print_table, transfer_bar
from burnish.datasets import (
    ROW_FORMATS,
    DatasetSummary,
    InvalidLineError,
    Packing,
    RowFormat,
    check_file,
    guess_format,
    is_text,
    iter_rows,
    open_dataset,
)
from burnish.datasets.conversion import Conversion
from burnish.datasets.converters import CONVERTERS
from burnish.datasets.errors import UnreadableError

_LARGE = 8 << 20

_existing = click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True)
_new = click.Path(dir_okay=False, path_type=Path, allow_dash=True)
_source = click.argument("path", metavar="FILE", type=_existing)


@click.group()
def data() -> None:
    """Check datasets, and convert what you have into them."""


@data.command()
@_source
@click.option("--method", type=click.Choice(list(ROW_FORMATS)), help="What to train with; default: by the first row.")
@json_option
@click.pass_context
def check(context: click.Context, path: Path, method: str | None, as_json: bool) -> None:
    """Check every row of FILE, as the server will; - reads from a pipe. Exit 1: there are problems."""
    name = "standard input" if str(path) == "-" else path.name
    row_format = ROW_FORMATS[method] if method else _guess_row_format(path, name)
    with _open_with_progress(path, name) as (packing, chunks):
        summary = check_file(name, chunks, row_format, packing=packing)
    if as_json:
        _print_summary_json(name, row_format.name, summary)
    else:
        _print_summary_text(name, row_format.name, summary)
    if not summary.ok:
        context.exit(1)


@data.command()
@_source
@click.option("--to", "method", type=click.Choice(list(ROW_FORMATS)), required=True, help="The method to train with.")
@click.option("--from", "source", type=click.Choice(list(CONVERTERS)), help="FILE's format; default: by the first row.")
@click.option("-o", "--output", type=_new, required=True, help="The .jsonl file to write; - for a pipe.")
@click.option("--strict", is_flag=True, help="Write nothing unless every row can be converted.")
def convert(path: Path, method: str, source: str | None, output: Path, strict: bool) -> None:
    """Convert FILE (JSONL, a JSON array, Parquet, or plain text in a .txt) into rows for a method; - reads from a pipe.

    FILE may be compressed by gzip or zstd. Rows that cannot be converted are reported and left out.
    """
    name = "standard input" if str(path) == "-" else path.name
    conversion = Conversion(method, source)
    try:
        with _open_with_progress(path, name) as (_, chunks), _open_output(output) as file:
            for line in conversion.lines(name, chunks):
                file.write(line)
            if not conversion.written or (strict and conversion.refused_count):
                raise _NothingWritten
    except _NothingWritten:
        _print_refused_rows(conversion)
        raise ValueError(_conversion_sentence(conversion, name, output=None)) from None
    _print_refused_rows(conversion)
    _print_left_out_keys(conversion)
    print_line(_conversion_sentence(conversion, name, output), err=True)


class _NothingWritten(Exception):
    pass


def _guess_row_format(path: Path, name: str) -> RowFormat:
    if str(path) == "-":
        raise click.UsageError("Name the --method: what comes through a pipe is read only once.")
    with path.open("rb") as file:
        packing, chunks = open_dataset(file)
        if is_text(name, packing):
            return ROW_FORMATS["pretraining"]
        try:
            row = next((row for _, row in iter_rows(chunks)), None)
        except (InvalidLineError, UnreadableError):
            row = None
    # Without a good first row the file is in no format, and any check will say so.
    row_format = guess_format(row) if row is not None else ROW_FORMATS["supervised"]
    if row_format is None:
        keys = ", ".join(list(row or ())[:12]) or "none"
        raise ValueError(
            f"{name}: no method has rows with the keys {keys}. Name one with --method, or see burnish data convert."
        )
    return row_format


@contextmanager
def _open_with_progress(path: Path, name: str) -> Generator[tuple[Packing, Iterator[bytes]], None, None]:
    """Open a file or a pipe and return its packing and what it holds, with a bar if reading takes long."""
    if str(path) == "-":
        yield open_dataset(sys.stdin.buffer)
        return
    size = path.stat().st_size
    with path.open("rb") as file, transfer_bar(name) if size > _LARGE else nullcontext() as tell:
        packing, chunks = open_dataset(file)

        def chunks_with_progress() -> Iterator[bytes]:
            for chunk in chunks:
                yield chunk
                if tell:
                    tell(file.tell(), size)

        yield packing, chunks_with_progress()


@contextmanager
def _open_output(path: Path) -> Generator[BinaryIO, None, None]:
    """Open a file to write, which gets its name only when all is in it; or standard output."""
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _print_summary_json(name: str, method: str, summary: DatasetSummary) -> None:
    problems = [{"line": problem.line, "reason": problem.reason} for problem in summary.problems]
    print_json(
        {
            "filename": name,
            "method": method,
            "rows": summary.rows,
            "problems": problems,
            "more_problems": summary.more_problems,
        }
    )


def _print_summary_text(name: str, method: str, summary: DatasetSummary) -> None:
    if summary.ok:
        good = "is good text" if is_text(name) else f"has {_count_noun(summary.rows, 'good row')}"
        print_line(f"{name} {good} for {method}.")
        return
    count = len(summary.problems) + summary.more_problems
    print_line(f"{name} has {_count_noun(count, 'problem')} for {method}:")
    unit = next((problem.unit for problem in summary.problems), "line")
    print_table((unit, "problem"), [(problem.line or "", problem.reason) for problem in summary.problems])
    if summary.more_problems:
        print_line(f"and {summary.more_problems:,} more")
    if summary.stopped_at is not None:
        print_line(f"The check stopped at {unit} {summary.stopped_at:,}: there may be others after it.")


def _print_refused_rows(conversion: Conversion) -> None:
    for place, reason in conversion.refused:
        print_line(f"{place}: {reason}", err=True)
    more = conversion.refused_count - len(conversion.refused)
    if more:
        print_line(f"and {more:,} more", err=True)


def _print_left_out_keys(conversion: Conversion) -> None:
    if conversion.left_out:
        counts = ", ".join(f"{place} ({count:,})" for place, count in conversion.left_out.most_common())
        print_line(f"Keys left out, with their counts: {counts}.", err=True)


def _conversion_sentence(conversion: Conversion, name: str, output: Path | None) -> str:
    read = f"{_count_noun(conversion.read, 'row')} of {conversion.source or 'no known format'} in {name}"
    left_out = f"{conversion.refused_count:,} could not be converted"
    if output is None:
        return f"Wrote nothing: {read}, {left_out}."
    row_count = f"{_count_noun(conversion.written, 'row')} for {conversion.method}"
    where = "" if str(output) == "-" else f" to {output}"
    return f"Wrote {row_count}{where}: {read}" + (f", {left_out}." if conversion.refused_count else ".")


def _count_noun(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
