"""`burnish chat`: one answer, or a conversation."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from burnish.cli.completion import complete_models
from burnish.cli.connection import connect_client
from burnish.cli.output import json_option, print_json, print_line
from burnish.errors import APIError, AuthenticationError, NotFoundError, PermissionDeniedError

if TYPE_CHECKING:
    from burnish.chat_schemas import ChatCompletion, ChatMessage
    from burnish.client import Burnish

_HELP = "/reset begins anew, /exit (or Ctrl-D) leaves, Ctrl-C stops an answer."
_HOPELESS = (AuthenticationError, NotFoundError, PermissionDeniedError)
"""Errors that no other message would avoid."""


@click.command()
@click.argument("model", shell_complete=complete_models)
@click.argument("prompt", required=False)
@click.option("--system", help="The instructions that the conversation begins with.")
@click.option("--temperature", type=click.FloatRange(0, 2), help="0 takes the likeliest token each time.")
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    help="Sample from the likeliest tokens with this total probability.",
)
@click.option("--max-tokens", type=click.IntRange(min=1), help="The most tokens in an answer.")
@click.option("--stop", multiple=True, metavar="TEXT", help="Ends the answer; may be repeated.")
@click.option("--seed", type=int, help="The same seed gives the same answer.")
@json_option
def chat(model: str, prompt: str | None, system: str | None, as_json: bool, **options: Any) -> None:
    """Talk with MODEL: a base, an outcome (ft:…) or one of its checkpoints.

    With PROMPT, prints one answer; - reads the prompt from a pipe. Without, in a terminal, it is a conversation.
    """
    settings = {name: list(value) if name == "stop" else value for name, value in options.items() if value}
    settings.update({name: options[name] for name in ("temperature", "seed") if options[name] is not None})
    if prompt is None and not sys.stdin.isatty():
        prompt = "-"
    if prompt is None and as_json:
        raise click.UsageError("--json needs a PROMPT.")
    with connect_client() as client:
        talk = _Conversation(client, model, system, settings)
        if prompt is None:
            _run_conversation(talk)
            return
        talk.add_user_message(_read_piped_prompt() if prompt == "-" else prompt)
        print_json(talk.whole_answer()) if as_json else talk.print_answer()


class _Conversation:
    """The conversation so far, and the settings for the next answer."""

    def __init__(self, client: Burnish, model: str, system: str | None, settings: dict[str, Any]) -> None:
        self._client = client
        self._fixed = {"model": model, **settings}
        self._start: list[ChatMessage] = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._start)

    def reset(self) -> None:
        """Forget everything but the system's message."""
        self._messages = list(self._start)

    def add_user_message(self, text: str) -> None:
        """Add what the user says."""
        self._messages.append({"role": "user", "content": text})

    def drop_last_message(self) -> None:
        """Forget the last message."""
        self._messages.pop()

    def completion_arguments(self) -> Any:
        """Return the arguments of a completion."""
        return {**self._fixed, "messages": self._messages}

    def whole_answer(self) -> ChatCompletion:
        """Return the answer when it is complete. Raises APIError."""
        return self._client.chat.completions.create(stream=False, **self.completion_arguments())

    def print_answer(self) -> None:
        """Print the answer as it comes, and keep it, also if Ctrl-C ended it. Raises APIError."""
        pieces: list[str] = []
        try:
            self._stream_answer(pieces)
        finally:
            if pieces:
                self._messages.append({"role": "assistant", "content": "".join(pieces)})
                click.echo()

    def _stream_answer(self, pieces: list[str]) -> None:
        finish_reason = None
        with self._client.chat.completions.create(stream=True, **self.completion_arguments()) as stream:
            for choice in (choice for chunk in stream for choice in chunk.choices):
                finish_reason = choice.finish_reason or finish_reason
                if choice.delta.content:
                    pieces.append(choice.delta.content)
                    print_line(choice.delta.content, nl=False)
                    sys.stdout.flush()
        if finish_reason == "length":
            print_line("\n(The answer was cut off: it has as many tokens as it may have.)", nl=False, err=True)


def _run_conversation(talk: _Conversation) -> None:
    with suppress(ImportError):
        import_module("readline")  # gives input() arrow keys and the lines before
    print_line(_HELP, err=True)
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            print_line(f"\n{_HELP}", err=True)
            continue
        if line in ("/exit", "/quit"):
            return
        _handle_line(talk, line)


def _handle_line(talk: _Conversation, line: str) -> None:
    if line == "/reset":
        talk.reset()
        print_line("Begun anew.", err=True)
    elif line.startswith("/"):
        print_line(f"There is no {line.split()[0]}. {_HELP}", err=True)
    elif line:
        talk.add_user_message(line)
        _try_to_answer(talk)


def _try_to_answer(talk: _Conversation) -> None:
    try:
        talk.print_answer()
    except KeyboardInterrupt:
        print_line("(stopped)", err=True)
    except APIError as error:
        if isinstance(error, _HOPELESS):
            raise
        talk.drop_last_message()
        print_line(f"Error: {error.message} Your last message was removed.", err=True)


def _read_piped_prompt() -> str:
    text = sys.stdin.read().strip()
    if not text:
        raise click.UsageError("Give a PROMPT, or one on standard input.")
    return text
