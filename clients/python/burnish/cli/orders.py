"""An order of the command line: the options, a file, or both, as the arguments of `jobs.create`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from burnish.cli.files import upload_with_progress
from burnish.cli.job_file import FILES, JobFile, JobFileError, read_job_file
from burnish.cli.job_options import pack_job_options
from burnish.errors import APIStatusError

if TYPE_CHECKING:
    from burnish.client import Burnish
    from burnish.job_arguments import CreateJob


class JobSubmission:
    """What is ordered by `options`, those of `order_options`. Raises click.ClickException, OSError."""

    def __init__(self, options: dict[str, Any]) -> None:
        path: Path | None = options.pop("job_file")
        self._given = pack_job_options(options)
        self._file: JobFile | None = None
        self._arguments = self._given
        if path is not None:
            self._file = read_job_file(path)
            self._arguments = _merge_job_file(self._file, self._given)
        for name in ("model", "training_file"):
            if name not in self._arguments:
                option = f"--{name.replace('_', '-')}"
                raise click.UsageError(f"Missing option '{option}': give it, or {name} in a --file.")
        self._files = {name: _path_or_file_id(self._arguments[name]) for name in FILES if name in self._arguments}

    @contextmanager
    def upload_files(self, client: Burnish) -> Generator[CreateJob, None, None]:
        """Upload the files that are paths and yield the arguments; a refusal gets the line of the file at fault."""
        ids = {
            name: upload_with_progress(client, file).id if isinstance(file, Path) else file
            for name, file in self._files.items()
        }
        try:
            yield cast("CreateJob", {**self._arguments, **ids})
        except APIStatusError as error:
            line = self._line_of(error.param)
            if line is not None:
                error.message += f" ({line})"
            raise

    def _line_of(self, param: str | None) -> str | None:
        if self._file is None or not param or param.split(".")[0] in self._given:
            return None
        line = self._file.line_of(param)
        return None if line is None else f"{self._file.name}, line {line}"


def _merge_job_file(file: JobFile, options: dict[str, Any]) -> dict[str, Any]:
    arguments, block = file.arguments, file.arguments.get("method")
    if not isinstance(block, dict):
        return _merge_values(arguments, options)
    kind = cast("dict[str, Any]", block).get("type")
    if "hyperparameters" in arguments:
        raise JobFileError(f"{file.name} has hyperparameters beside those of its method: keep them in one place.")
    if options.get("method", kind) != kind or not isinstance(kind, str):
        raise JobFileError(f"{file.name} describes the method {kind}, which --method cannot change.")
    other_options = {name: value for name, value in options.items() if name not in ("method", "hyperparameters")}
    own = {kind: {"hyperparameters": options["hyperparameters"]}} if "hyperparameters" in options else {}
    return _merge_values(arguments, {**other_options, "method": own})


def _merge_values(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay values over others, name by name at each level."""
    result = dict(below)
    for name, value in above.items():
        under = result.get(name)
        both_objects = isinstance(value, dict) and isinstance(under, dict)
        result[name] = (
            _merge_values(cast("dict[str, Any]", under), cast("dict[str, Any]", value)) if both_objects else value
        )
    return result


def _path_or_file_id(value: str) -> Path | str:
    """Tell a path from an id. Raises a usage error for what is neither."""
    if Path(value).is_file():
        return Path(value)
    if value.startswith("file-") and "/" not in value:
        return value
    raise click.BadParameter(f"{value!r} is neither a file here nor a file's id (file-…).")
