"""What ends a command: one sentence on standard error, exit status 1, no traceback."""

from __future__ import annotations

from typing import IO, Any

import click

from service.kit.terminal import replace_unprintable


class CommandFailed(click.ClickException):
    """A command cannot do what it was asked; the message says why and what to do."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        printable = "\n".join(map(replace_unprintable, self.message.split("\n")))
        click.echo(f"burnish-server: {printable}", file=file, err=True)


class Commands(click.Group):
    """A group of commands that turns expected errors into sentences."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command. Raises CommandFailed for an error that has a sentence."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            sentence = sentence_of(error)
            if sentence is None:
                raise
            raise CommandFailed(sentence) from error


def sentence_of(error: Exception) -> str | None:
    """Return the sentence for an error, None for an unexpected one."""
    if isinstance(error, ModuleNotFoundError):
        return (
            f"The Python package '{error.name}' is not installed. Install this service again with all it needs: "
            "pip install burnish-server"
        )
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{where}"
    # Only here: `--help` must not wait for SQLAlchemy.
    from sqlalchemy.exc import SQLAlchemyError

    from service.backups.errors import BackupError
    from service.catalog import SourceMissing
    from service.kit.errors import ServiceError
    from service.kit.settings import SettingsError
    from service.migrations import MigrationRefused
    from service.queue.base import QueueUnavailable
    from service.queue.embedded import ValkeyFailed
    from service.storage.errors import StorageError

    foreseen = (
        BackupError,
        MigrationRefused,
        QueueUnavailable,
        ServiceError,
        SettingsError,
        SourceMissing,
        StorageError,
        ValkeyFailed,
    )
    if isinstance(error, foreseen):
        return str(error)
    if isinstance(error, SQLAlchemyError):
        return f"The database of BURNISH_DATABASE_URL cannot be used: {str(error).splitlines()[0]}"
    return None
