"""Errors of files: unknown ones, and uploads that are not datasets."""

from __future__ import annotations

from burnish.datasets import describe
from burnish.datasets.base import DatasetSummary, Problem
from service.kit.errors import InvalidRequest, NotFound, TooLarge


class FileNotFound(NotFound):
    """No file of this project has the id."""

    def __init__(self, file_id: str, *, param: str | None = "id") -> None:
        super().__init__(f"No such File object: {file_id[:64]}", param=param)


class InvalidFile(InvalidRequest):
    """The bytes are not a dataset of a known form; each of the first problems is named with its line."""

    def __init__(self, filename: str, summary: DatasetSummary) -> None:
        problems = [{"line": problem.line, "reason": problem.reason} for problem in summary.problems]
        super().__init__(
            describe(filename, summary), param="file", code="invalid_file_format", extra={"problems": problems}
        )


class FileTooLarge(TooLarge):
    """The file is larger than the service accepts."""

    def __init__(self, filename: str, limit: int, *, param: str) -> None:
        super().__init__(f"'{filename}' is larger than {limit} bytes, the most this service accepts.", param=param)


SAMPLE_TOO_LARGE = FileTooLarge("train.jsonl", 1 << 30, param="file")
SAMPLE_INVALID = InvalidFile("train.jsonl", DatasetSummary(1, (Problem(2, "is not a JSON object"),)))
"""Both are for the API's description."""
