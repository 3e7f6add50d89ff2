"""`burnish models`."""

from __future__ import annotations

import click

from burnish.cli.output import json_option, print_json, print_table
from burnish.client import Burnish


@click.group()
def models() -> None:
    """Show the models that can be tuned, and tuned ones."""


@models.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List bases and the outcomes of jobs."""
    with Burnish() as client:
        found = list(client.models.list())
    if as_json:
        print_json(found)
    else:
        print_table(("id", "owned by"), [(model.id, model.owned_by) for model in found])


@models.command()
@click.argument("model")
@json_option
def delete(model: str, as_json: bool) -> None:
    """Delete the outcome of a job."""
    with Burnish() as client:
        gone = client.models.delete(model)
    print_json(gone) if as_json else click.echo(f"Deleted {gone.id}.")
