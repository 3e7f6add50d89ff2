"""`burnish completion`, and what is completed: ids and names from the server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from burnish._text import printable_line
from burnish.errors import BurnishError

if TYPE_CHECKING:
    from burnish.client import Burnish

_SECONDS = 2.0
"""A server that does not answer within these completes nothing: nobody waits longer at a prompt."""
_MOST = 100


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a shell's completion of this command.

    \b
    bash: echo 'source <(burnish completion bash)' >> ~/.bashrc
    zsh:  echo 'source <(burnish completion zsh)' >> ~/.zshrc
    fish: burnish completion fish > ~/.config/fish/completions/burnish.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "burnish", "_BURNISH_COMPLETE").source())


def _make_completer(
    find: Callable[[Burnish], list[CompletionItem]],
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    def complete_value(_context: click.Context, _parameter: click.Parameter, beginning: str) -> list[CompletionItem]:
        from burnish.client import Burnish

        # Whatever is wrong is for the command itself to say: a prompt is not the place for errors.
        with suppress(BurnishError, OSError), Burnish(timeout=_SECONDS, max_retries=0) as client:
            return [_one_line_item(item) for item in find(client) if str(item.value).startswith(beginning)]
        return []

    return complete_value


def _one_line_item(item: CompletionItem) -> CompletionItem:
    """Return an item as one line each of value and help: a shell shows them, and some read them line by line."""
    return CompletionItem(printable_line(str(item.value)), help=printable_line(item.help or "") or None)


def _list_job_items(client: Burnish) -> list[CompletionItem]:
    jobs = islice(client.jobs.list(limit=_MOST), _MOST)
    return [CompletionItem(job.id, help=f"{job.phase or job.status}, {job.model}") for job in jobs]


def _list_model_items(client: Burnish) -> list[CompletionItem]:
    return [CompletionItem(model.id, help=model.owned_by) for model in client.models.list()]


def _list_file_items(client: Burnish) -> list[CompletionItem]:
    files = islice(client.files.list(limit=_MOST), _MOST)
    return [CompletionItem(file.id, help=file.filename) for file in files]


complete_jobs: Any = _make_completer(_list_job_items)
complete_models: Any = _make_completer(_list_model_items)
complete_files: Any = _make_completer(_list_file_items)


def complete_methods(_context: click.Context, _parameter: click.Parameter, beginning: str) -> list[CompletionItem]:
    """Complete the name of a training method."""
    from burnish.datasets import ROW_FORMATS

    return [CompletionItem(name) for name in ROW_FORMATS if name.startswith(beginning)]
