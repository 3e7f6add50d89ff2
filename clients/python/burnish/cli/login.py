"""`burnish login`: keep an address and a key for later commands."""

from __future__ import annotations

import click

from burnish import config
from burnish.cli.output import print_line
from burnish.client import Burnish


@click.command()
@click.option("--base-url", envvar="BURNISH_BASE_URL", prompt="Address", help="Like http://127.0.0.1:8000/v1.")
@click.option(
    "--api-key",
    envvar="BURNISH_API_KEY",
    prompt="API key",
    hide_input=True,
    help="Better typed at the prompt: other users of the machine can read a command's arguments.",
)
def login(base_url: str, api_key: str) -> None:
    """Check an address and a key, and keep them for this user."""
    settings = config.resolve_settings(base_url, api_key)
    with Burnish(base_url=settings.base_url, api_key=settings.api_key) as client:
        client.models.list()
    print_line(f"Wrote {config.save_settings(settings)}.")
