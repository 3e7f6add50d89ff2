"""The `burnish` command, and how it ends."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from enum import IntEnum

import click

from burnish._text import printable_text
from burnish._version import __version__
from burnish.cli.lazy import LazyGroup
from burnish.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    BurnishError,
    ExportFailed,
    JobFailed,
)


class Exit(IntEnum):
    """How the command ends."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    JOB_FAILED = 3
    JOB_CANCELLED = 4
    REFUSED = 5
    UNREACHABLE = 6
    INTERRUPTED = 130
    NO_READER = 141


_EPILOG = """\b
Exit status:
    0  done
    1  an error here: a setting, a file, a dataset with problems
    2  wrong usage
    3  the job, or the export, failed
    4  the job was cancelled
    5  the server refused, or is at fault
    6  the server cannot be reached
  130  interrupted (Ctrl-C)
  141  nobody reads what is printed
"""

_COMMANDS = {
    "login": ("login", "Check an address and a key, and keep them for this user."),
    "data": ("data", "Check datasets, and convert what you have into them."),
    "files": ("files", "Upload datasets, read results."),
    "jobs": ("jobs", "Order training runs, follow them, fetch what comes of them."),
    "models": ("models", "Show the models that can be tuned, and tuned ones."),
    "chat": ("chat", "Talk with a base, an outcome (ft:…) or one of its checkpoints."),
    "score": ("score", "Score the answers in a JSONL file with a reward model on this machine."),
    "webhooks": ("webhooks", "Tell your receivers when jobs end."),
    "projects": ("keys", "Show and make projects."),
    "keys": ("keys", "Make, list and revoke a project's API keys."),
    "limits": ("administration", "Show what a project may use and uses, or set it."),
    "audit": ("administration", "Show what was changed, by whom, and what was refused."),
    "completion": ("completion", "Print a shell's completion of this command."),
}
"""Each command with its module in this package and what `burnish --help` says of it."""


class _Commands(LazyGroup):
    def invoke(self, ctx: click.Context) -> object:
        """Run a command; click would call a reader that went away a good end."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Python flushes at its end once more: into nothing, so that it does not complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(Exit.NO_READER) from None
        return result


@click.group(
    cls=_Commands, commands_in=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG
)
@click.version_option(__version__, prog_name="burnish")
def cli() -> None:
    """Fine-tune language models on a Burnish server.

    The server's address and key come from BURNISH_BASE_URL and BURNISH_API_KEY, else from client.json in
    BURNISH_DATA (default ./.burnish), else from `burnish login`.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; whatever goes wrong is one sentence on stderr."""
    try:
        return cli.main(args=arguments, prog_name="burnish", standalone_mode=False) or Exit.DONE
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        output = io.StringIO()
        error.show(file=output)  # what it repeats of an argument or a file must not steer the terminal either
        click.echo(printable_text(output.getvalue()), err=True, nl=False)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        return _end_after_abort(error)
    except BurnishError as error:
        return _print_failure(_error_sentence(error), _exit_status(error))
    except OSError as error:
        return _print_failure(_file_error_sentence(error), Exit.ERROR)
    except ValueError as error:
        return _print_failure(str(error), Exit.ERROR)


def _exit_status(error: BurnishError) -> Exit:
    if isinstance(error, JobFailed):
        return Exit.JOB_CANCELLED if error.job.status == "cancelled" else Exit.JOB_FAILED
    if isinstance(error, ExportFailed):
        return Exit.JOB_FAILED
    if isinstance(error, APIConnectionError):
        return Exit.UNREACHABLE
    return Exit.REFUSED if isinstance(error, APIError) else Exit.ERROR


def _error_sentence(error: BurnishError) -> str:
    lines = [error.message]
    if isinstance(error, APIStatusError):
        lines += [
            f"  line {problem.line}: {problem.reason}" if problem.line else f"  {problem.reason}"
            for problem in error.problems
        ]
    if isinstance(error, APIError) and error.request_id:
        lines.append(f"(request {error.request_id})")
    return "\n".join(lines) if len(lines) > 2 else " ".join(lines)


def _file_error_sentence(error: OSError) -> str:
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}."


def _end_after_abort(error: BaseException) -> Exit:
    # What `click.confirm` raises for a no, or if nobody can answer, comes from no interrupt.
    if isinstance(error, click.Abort) and not isinstance(error.__context__, KeyboardInterrupt):
        click.echo("Nothing was done.", err=True)
        return Exit.ERROR
    click.echo("Interrupted.", err=True)
    return Exit.INTERRUPTED


def _print_failure(message: str, status: Exit) -> int:
    click.echo(f"Error: {printable_text(message)}", err=True)
    return status
