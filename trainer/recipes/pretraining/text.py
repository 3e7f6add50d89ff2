"""Documents: a text file is one, a line of a JSONL file is one."""

from __future__ import annotations

from pathlib import Path

from trainer.contract.rows import TextRow
from trainer.kit.errors import TrainerError
from trainer.kit.row_files import read_rows


def read_documents(path: Path, *, filename: str, param: str) -> list[TextRow]:
    """Read `.txt` as one document, anything else as JSON lines `{"text": …}`; line ends stay as they are.

    Raises TrainerError (`invalid_training_file` or `invalid_validation_file`, after `param`).
    """
    if path.suffix != ".txt":
        rows = read_rows(path, TextRow, filename=filename, param=param)
    else:
        rows = [TextRow.model_construct(text=text, line=1)] if (text := _read_text(path, filename, param)) else []
    if not rows:
        raise TrainerError(f"invalid_{param}", f"The file {filename} is empty: there is no text to read.", param=param)
    return rows


def _read_text(path: Path, filename: str, param: str) -> str:
    try:
        # Editors on Windows put a byte order mark in front, which is no text.
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        message = f"The file {filename} is missing from the work folder."
        raise TrainerError(f"invalid_{param}", message, param=param) from error
    except UnicodeDecodeError as error:
        message = f"The file {filename} is not UTF-8: {error.reason} at byte {error.start}."
        raise TrainerError(f"invalid_{param}", message, param=param) from error
