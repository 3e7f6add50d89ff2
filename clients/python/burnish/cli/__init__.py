"""The `burnish` command. Exit: 0 done, 1 error, 2 wrong usage, 3 the job did not succeed, 130 interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import click

from burnish.cli.administration import audit, limits
from burnish.cli.chat import chat
from burnish.cli.data import data
from burnish.cli.files import files
from burnish.cli.jobs import jobs
from burnish.cli.keys import keys, projects
from burnish.cli.login import login
from burnish.cli.models import models
from burnish.cli.score import score
from burnish.cli.webhooks import webhooks
from burnish.client import __version__
from burnish.errors import APIError, APIStatusError, BurnishError, JobFailed
from burnish.progress import printable


class Exit(IntEnum):
    """How the command ends."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    JOB_FAILED = 3
    INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="burnish")
def cli() -> None:
    """Fine-tune language models on a Burnish server.

    The server's address and key come from BURNISH_BASE_URL and BURNISH_API_KEY, else from client.json in
    BURNISH_DATA (default ./.burnish), else from `burnish login`.
    """


for command in (login, data, files, jobs, models, chat, score, webhooks, projects, keys, limits, audit):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; whatever goes wrong is one sentence on stderr."""
    try:
        return cli.main(args=arguments, prog_name="burnish", standalone_mode=False) or Exit.DONE
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return Exit.INTERRUPTED
    except JobFailed as error:
        return _fail(error.message, Exit.JOB_FAILED)
    except BurnishError as error:
        return _fail(_sentence(error), Exit.ERROR)
    except (OSError, ValueError) as error:
        return _fail(str(error), Exit.ERROR)


def _sentence(error: BurnishError) -> str:
    lines = [error.message]
    if isinstance(error, APIStatusError):
        lines += [
            f"  line {problem.line}: {problem.reason}" if problem.line else f"  {problem.reason}"
            for problem in error.problems
        ]
    if isinstance(error, APIError) and error.request_id:
        lines.append(f"(request {error.request_id})")
    return "\n".join(lines) if len(lines) > 2 else " ".join(lines)


def _fail(message: str, status: Exit) -> int:
    click.echo(f"Error: {printable(message)}", err=True)
    return status
