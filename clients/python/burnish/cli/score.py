"""`burnish score`: a reward model's scores of answers, computed here by the trainer's own program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

_PROBE = (
    "import importlib.util as u, sys; "
    "sys.exit(not all(map(u.find_spec, ('trainer', 'trainer.programs', 'trainer.programs.score'))))"
)

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_folder = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("source", metavar="INPUT", type=_file)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The new file.")
@click.option("--adapter", type=_folder, required=True, help="The reward model's folder, a reward job's result.")
@click.option("--base", type=_folder, required=True, help="The folder of the base model that it was trained on.")
@click.option("--python", default=sys.executable, help="The Python that the trainer is installed in; default: this.")
@click.pass_context
def score(context: click.Context, source: Path, output: Path, adapter: Path, base: Path, python: str) -> None:
    """Score the answers in INPUT, a JSONL file, with a reward model on this machine.

    A row is {"input": {"messages": [...]}, "responses": [...]}, which is written with its "scores", or
    {"messages": [...]} that ends with the assistant's message, which is written with its "score".
    """
    try:
        has_trainer = subprocess.run([python, "-c", _PROBE], check=False, capture_output=True).returncode == 0
    except OSError as error:
        raise click.ClickException(f"{python} cannot be run: {error.strerror}.") from error
    if not has_trainer:
        raise click.ClickException(
            f"Scoring needs the trainer, which is not installed for {python}: pip install 'burnish-server[trainer]', "
            "or name the Python that has it with --python."
        )
    command = [python, "-m", "trainer.programs.score", "--base", base, "--adapter", adapter, source, output]
    context.exit(subprocess.run([str(part) for part in command], check=False).returncode)
