"""`python -m trainer.programs.export FOLDER`: merge a fine-tuned model into its base and write it in another format.

FOLDER is laid out as `trainer.contract.export` says. Exit 0 done, 1 fault, 2 bad input with one sentence on stderr.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import ValidationError

from trainer.contract.export import RESULT_NAME, SPEC_NAME, ExportSpec
from trainer.contract.result import ExitCode
from trainer.programs.shell import run_program


def main(arguments: list[str]) -> int:
    """Make the export that the folder's `export.json` describes."""
    if len(arguments) != 1:
        print("usage: python -m trainer.programs.export FOLDER", file=sys.stderr)
        return ExitCode.BAD_INPUT
    folder = Path(arguments[0])
    try:
        spec = ExportSpec.model_validate_json((folder / SPEC_NAME).read_bytes())
    except (OSError, ValidationError) as error:
        print(f"{folder / SPEC_NAME} does not describe an export: {error}", file=sys.stderr)
        return ExitCode.BAD_INPUT

    def work() -> ExitCode:
        from trainer.exporting import export_model

        check = export_model(spec, folder)
        (folder / RESULT_NAME).write_text(check.model_dump_json(indent=1), encoding="utf-8")
        return ExitCode.DONE

    return run_program(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
