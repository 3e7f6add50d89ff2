"""`python -m trainer.programs.inspect_base SOURCE_JSON OUT_JSON WHERE`: the card of a base model, without its weights.

SOURCE_JSON is as for `trainer.programs.prepare`; a model of the hub must lie in its `folder`. WHERE is what sentences
call it. OUT_JSON gets an `Inspection`. Exit 0 if it was written, with a card or with a problem; 1 fault, 2 bad input.
"""

from __future__ import annotations

import sys
from pathlib import Path

from trainer.contract.base_model import Inspection
from trainer.contract.result import ExitCode
from trainer.kit.errors import TrainerError
from trainer.programs.base_source import read_source
from trainer.programs.shell import run_program


def main(arguments: list[str]) -> int:
    """Inspect one base model."""
    if len(arguments) != 3:
        print("usage: python -m trainer.programs.inspect_base SOURCE_JSON OUT_JSON WHERE", file=sys.stderr)
        return ExitCode.BAD_INPUT
    source = read_source(Path(arguments[0]))
    if source is None:
        return ExitCode.BAD_INPUT

    def work() -> ExitCode:
        from trainer.preview.base_card import BaseInspector

        try:
            inspection = Inspection(card=BaseInspector(source, arguments[2]).describe_base())
        except TrainerError as error:
            inspection = Inspection(problem=error.message)
        Path(arguments[1]).write_text(inspection.model_dump_json(), encoding="utf-8")
        return ExitCode.DONE

    return run_program(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
