"""`burnish-server`: every process of the service. Heavy imports wait inside the commands, so that help is quick."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from service.cli.backups import backup, restore
from service.cli.errors import Commands
from service.cli.keys import keys
from service.cli.models import models
from service.cli.projects import projects

_PORT = click.IntRange(1, 65535)
_CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=Commands, context_settings=_CONTEXT)
@click.version_option(package_name="burnish-server")
def cli() -> None:
    """Burnish: post-training of language models as a service that you host yourself.

    Settings come from the environment (BURNISH_...); `up` needs none.
    """


@cli.command()
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="The data folder; else BURNISH_DATA or ./.burnish."
)
@click.option("--host", default="127.0.0.1", help="The address to listen on.")
@click.option("--port", type=_PORT, default=8000)
@click.option("--workers", type=click.IntRange(1, 64), default=1, help="How many jobs train at the same time.")
@click.option("--apis", type=click.IntRange(1, 64), default=2, help="How many processes answer requests.")
def up(data: Path | None, host: str, port: int, workers: int, apis: int) -> None:
    """Run everything on this machine: API, controller, workers, Valkey, SQLite. Ctrl-C stops it all."""
    from service.cli.up import run_up

    sys.exit(run_up(data, host=host, port=port, workers=workers, apis=apis))


@cli.command()
@click.option("--host", default="127.0.0.1", help="The address to listen on.")
@click.option("--port", type=_PORT, default=8000)
@click.option("--share-port", is_flag=True, help="Share the port with other processes.")
@click.option("--name", help="The process's name in its log and metrics, if there are several; else api.")
def api(host: str, port: int, share_port: bool, name: str | None) -> None:
    """Serve the HTTP API."""
    from service.api.main import run_api
    from service.cli.checks import check_port
    from service.kit.settings import load_settings

    check_port(host, port, shared=share_port)
    sys.exit(run_api(load_settings(), host, port, name=name, shared=share_port))


@cli.command()
def controller() -> None:
    """Check datasets, feed the queue, end expired leases, send webhooks, delete garbage."""
    from service.controller.main import run_controller
    from service.kit.settings import load_settings

    sys.exit(run_controller(load_settings()))


@cli.command()
@click.option("--name", help="The worker's name in logs and leases; else this machine's name and the process id.")
def worker(name: str | None) -> None:
    """Take jobs from the queue and train, one after the other."""
    import socket

    from service.kit.settings import load_settings
    from service.worker.main import run_worker

    sys.exit(run_worker(load_settings(), name=name or f"{socket.gethostname()}-{os.getpid()}"))


@cli.command()
@click.option("--socket", type=click.Path(path_type=Path, dir_okay=False), help="A unix socket to listen on.")
@click.option("--host", default="127.0.0.1", help="The address to listen on, unless there is a --socket.")
@click.option("--port", type=_PORT, default=8100)
def engine(socket: Path | None, host: str, port: int) -> None:
    """Answer chats for the API: one base in memory, the jobs' adapters on it."""
    from service.cli.checks import check_port
    from service.engine.main import run_engine
    from service.kit.settings import load_settings

    if socket is None:
        check_port(host, port)
    sys.exit(run_engine(load_settings(), uds=socket, host=host, port=port))


@cli.command()
@click.option("--to", "revision", metavar="REVISION", help="Another schema, such as that of an earlier release.")
def migrate(revision: str | None) -> None:
    """Bring the database's schema to this version, or back to that of an earlier one. Stop the service first."""
    from service import migrations
    from service.kit.settings import load_settings

    settings = load_settings()
    if settings.database_url is None:
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    if revision is None:
        migrations.upgrade_schema(settings)
        click.echo(f"The database's schema is this version's, {migrations.head_revision()}.")
    else:
        migrations.move_schema(settings, revision)
        click.echo(f"The database's schema is {revision}.")


@cli.command()
def openapi() -> None:
    """Print the API's OpenAPI document."""
    import json

    from service.api.app import openapi_document

    click.echo(json.dumps(openapi_document(), indent=2, ensure_ascii=False))


cli.add_command(backup)
cli.add_command(keys)
cli.add_command(models)
cli.add_command(projects)
cli.add_command(restore)


def main() -> None:
    """Run the command line. What it and its child processes make is for its owner alone."""
    os.umask(0o077)
    cli(prog_name="burnish-server")


if __name__ == "__main__":
    main()
