"""`python -m trainer.programs.score --base DIR --adapter DIR INPUT OUTPUT`: a reward model's scores of answers.

A row is `{"input": {"messages": […]}, "responses": […]}`, each response `{"message": {…}}`, a message or a string,
and is written with `scores`; or `{"messages": […]}` that ends with the assistant's message, written with `score`.
Exit: 0 done; 2 wrong usage, or lines that could not be scored: they are named on stderr and left out; 1 a fault.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from pydantic import ValidationError

from trainer.contract.result import ExitCode
from trainer.contract.rows import ChatRow, Message, Prompt
from trainer.kit.errors import TrainerError, as_trainer_error
from trainer.programs.shell import run_program

if TYPE_CHECKING:
    from trainer.engine.reward.scorer import ResponseScorer

CHUNK_ROWS = 64
# The base has no score head, of which transformers would warn: the head comes with the adapter.
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


@dataclass(frozen=True)
class RowToScore:
    """A row as it was read, the conversations to score, and the key that the scores are written under."""

    number: int
    row: dict[str, Any]
    conversations: tuple[ChatRow, ...]
    key: str


def parse_line(text: str, number: int) -> RowToScore:
    """Read a row. Raises ValueError with the reason."""
    row = json.loads(text)
    if not isinstance(row, dict):
        raise ValueError("a row is a JSON object")
    if not _is_encodable_row(row):
        raise ValueError("a text has half a character (an unpaired surrogate)")
    value = cast("dict[str, Any]", row)
    if "messages" in value:
        chat = ChatRow.model_validate({"messages": value["messages"], "tools": value.get("tools"), "line": number})
        if chat.messages[-1].role != "assistant":
            raise ValueError("messages must end with a message of the assistant, which is what is scored")
        return RowToScore(number, value, (chat,), "score")
    responses = value.get("responses")
    if "input" not in value or not isinstance(responses, list) or not responses:
        raise ValueError("a row needs messages, or input with a list of responses")
    prompt = Prompt.model_validate(value["input"])
    conversations = tuple(
        ChatRow(messages=(*prompt.messages, _parse_response(response)), tools=prompt.tools, line=number)
        for response in cast("list[Any]", responses)
    )
    return RowToScore(number, value, conversations, "scores")


def _is_encodable_row(row: Any) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _parse_response(response: Any) -> Message:
    if isinstance(response, str):
        return Message(role="assistant", content=response)
    answer_message: Any = (
        cast("dict[str, Any]", response).get("message", response) if isinstance(response, dict) else response
    )
    message = Message.model_validate(answer_message)
    if message.role != "assistant":
        raise ValueError("a response is a message of the assistant")
    return message


def main(arguments: Sequence[str]) -> int:
    """Score a file of rows with a reward model; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.programs.score", description="Score answers with a reward model."
    )
    parser.add_argument("--base", type=Path, required=True, help="the base model's folder")
    parser.add_argument("--adapter", type=Path, required=True, help="the reward model's folder, a reward job's result")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args(arguments)
    for path, config_name in ((options.base, "config.json"), (options.adapter, "adapter_config.json")):
        if not (path / config_name).is_file():
            parser.error(f"{path} has no {config_name}")
    if not options.input.is_file():
        parser.error(f"{options.input} is not a file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what one library says to another is not for our users
        return run_program(partial(_score_arguments, options), _print_message, **QUIET)


def _score_arguments(options: argparse.Namespace) -> ExitCode:
    from trainer.engine.reward.scorer import ResponseScorer

    try:
        scorer = ResponseScorer(options.base.resolve(), options.adapter.resolve(), options.dtype)
        return _score_file(scorer, options.input, options.output)
    except OSError as error:
        raise TrainerError("file_error", str(error), exit_code=ExitCode.FAULT) from error
    except RuntimeError as error:  # torch has no other name for memory that ran out
        trainer_error = as_trainer_error(error)
        raise TrainerError(
            trainer_error.code, f"{trainer_error.message} ({error})", exit_code=trainer_error.exit_code
        ) from error


def _print_message(failure: TrainerError) -> None:
    print(failure.message, file=sys.stderr)


def _score_file(scorer: ResponseScorer, source: Path, target: Path) -> ExitCode:
    incoming = target.with_name(f".{target.name}.part")
    scored_rows = bad = 0
    try:
        with incoming.open("w", encoding="utf-8") as output:
            for chunk in _read_chunks(source):
                for item in chunk:
                    if isinstance(item, str):
                        bad += 1
                        print(item, file=sys.stderr)
                lines = [item for item in chunk if isinstance(item, RowToScore)]
                written_rows, problems = _score_chunk(scorer, lines, output)
                scored_rows, bad = scored_rows + written_rows, bad + len(problems)
                for problem in problems:
                    print(problem, file=sys.stderr)
        incoming.replace(target)
    finally:
        incoming.unlink(missing_ok=True)
    print(f"{scored_rows} row(s) scored, {bad} line(s) left out.", file=sys.stderr)
    return ExitCode.BAD_INPUT if bad else ExitCode.DONE


def _score_chunk(scorer: ResponseScorer, lines: Sequence[RowToScore], output: TextIO) -> tuple[int, list[str]]:
    """Score the chunk's rows together and write them in their order; return how many, and the problems."""
    results = scorer.score_conversations([line.conversations for line in lines])
    problems: list[str] = []
    for line, result in zip(lines, results, strict=True):
        if isinstance(result, str):
            problems.append(f"line {line.number}: {result}")
            continue
        scores = result if line.key == "scores" else result[0]
        output.write(json.dumps({**line.row, line.key: scores}, ensure_ascii=False) + "\n")
    return len(lines) - len(problems), problems


def _read_chunks(source: Path) -> Iterator[list[RowToScore | str]]:
    """Read the file in chunks of rows, a problem in the place of a line that is none; shows how far it is."""
    from rich.console import Console
    from rich.progress import Progress

    lines = _read_lines(source)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Scoring", total=source.stat().st_size)
        while chunk := list(itertools.islice(lines, CHUNK_ROWS)):
            yield [item for item, _ in chunk]
            progress.update(task, advance=sum(size for _, size in chunk))


def _read_lines(source: Path) -> Iterator[tuple[RowToScore | str, int]]:
    with source.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            try:
                yield parse_line(raw.decode("utf-8"), number), len(raw)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                where = ".".join(str(part) for part in first["loc"])
                yield f"line {number}: {where + ': ' if where else ''}{first['msg']}", len(raw)
            except (ValueError, RecursionError) as error:
                yield f"line {number}: {error}", len(raw)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
