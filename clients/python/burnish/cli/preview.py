"""How a preview looks in a terminal: tables, and the sample with its trained spans coloured."""

from __future__ import annotations

import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from burnish._text import printable_text
from burnish.cli.output import format_bytes, print_fields, print_line, print_table

if TYPE_CHECKING:
    from burnish.client import Burnish
    from burnish.preview_schemas import DataPreview, JobPreview, SampleRow

_STEP_SECONDS = 5
"""How long one request waits: so often the terminal may show what takes long."""


_SHOWN = {"epochs": "n_epochs", "batch size": "batch_size", "learning rate": "learning_rate"}


def await_preview(client: Burnish, rows: int, arguments: Any) -> JobPreview:
    """Return the preview, however long it takes; what it is busy with meanwhile goes to standard error."""
    from burnish.errors import APIStatusError

    last_note = ""
    while True:
        try:
            return client.jobs.preview(rows=rows, wait=_STEP_SECONDS, **arguments)
        except APIStatusError as error:
            if error.code != "preview_timeout":
                raise
            note = error.message.partition("seconds. ")[2].partition(". Send the same")[0]
            if note and note != last_note:
                click.echo(f"{printable_text(note)} …", err=True)
            last_note = note


def print_preview(preview: JobPreview, *, training_file: str) -> None:
    """Print everything; trained spans are green in a terminal and between ⟦ and ⟧ elsewhere."""
    files = [_file_row("training", preview.training)]
    if preview.validation is not None:
        files.append(_file_row("validation", preview.validation))
    print_table(("file", "name", "rows", "used", "tokens", "in the loss", "cut", "dropped"), files)
    time, memory = preview.estimates.time, preview.estimates.memory
    click.echo()
    print_fields(
        {
            "training file": training_file,
            **_list_settings(preview),
            "steps": f"{preview.steps:,}",
            "trained tokens": f"{'' if preview.trained_tokens_exact else 'at most '}{preview.trained_tokens:,}",
            "time": f"{_format_duration(time.seconds)}. {time.method}",
            "memory": f"{format_bytes(memory.bytes)}. {memory.method}",
            "queue": preview.queue.message,
        }
    )
    for warning in preview.warnings:
        click.echo(click.style("warning: ", fg="yellow"), nl=False)
        print_line(warning)
    for row in preview.sample:
        click.echo()
        click.echo(
            click.style(
                f"line {row.line}, {printable_text(row.part)}, {len(row.tokens) + row.left_out} tokens", bold=True
            )
        )
        click.echo(_colour_sample(row))


def _list_settings(preview: JobPreview) -> dict[str, str]:
    """Return the hyperparameters that people ask for first, as the numbers that `auto` becomes."""
    block = preview.method.get(preview.method.get("type", ""), {})
    values = block.get("hyperparameters", {})
    numbers = {label: values.get(name) for label, name in _SHOWN.items()}
    settings = {label: f"{number:g}" for label, number in numbers.items() if isinstance(number, int | float)}
    accumulation = values.get("gradient_accumulation_steps")
    if isinstance(accumulation, int) and accumulation > 1 and "batch size" in settings:
        settings["batch size"] += f", gradients of {accumulation} batches a step"
    return settings


def _file_row(role: str, data: DataPreview) -> tuple[object, ...]:
    counts = (data.rows, data.used, data.tokens, data.trained_tokens)
    return (
        role,
        data.filename,
        *(f"{count:,}" for count in counts),
        _format_lines(data.cut, data.cut_lines),
        _format_lines(data.dropped, data.dropped_lines),
    )


def _format_lines(count: int, lines: list[int]) -> str:
    if not count:
        return "0"
    line_numbers = ", ".join(map(str, lines[:5]))
    return f"{count} (line {line_numbers}{', …' if count > 5 else ''})"


def _format_duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _colour_sample(row: SampleRow) -> str:
    plain = not sys.stdout.isatty()
    parts: list[str] = []
    for is_trained, tokens in groupby(row.tokens, key=lambda token: token.trained):
        lines = "".join(token.text for token in tokens).split("\n")
        text = "\n".join(printable_text(line) for line in lines)
        parts.append(_mark_trained(text, plain) if is_trained else text)
    return "".join(parts) + (f" … {row.left_out} more tokens" if row.left_out else "")


def _mark_trained(text: str, plain: bool) -> str:
    return f"⟦{text}⟧" if plain else click.style(text, fg="green")
