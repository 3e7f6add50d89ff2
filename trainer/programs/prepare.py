"""`python -m trainer.programs.prepare SOURCE_JSON DEST`: turn a base model's source into a folder that trainers read.

SOURCE_JSON is one of `{"kind": "gguf", "path": "/…/model.gguf"}`, `{"kind": "folder", "path": "/…"}` and
`{"kind": "hf", "repo": "org/name", "revision": "<commit>"}`. DEST becomes safetensors weights, tokenizer and
`base.json`; it appears whole or not at all. Exit 0 done, 1 fault, 2 bad input with one sentence on stderr.
"""

from __future__ import annotations

import sys
from pathlib import Path

from trainer.contract.result import ExitCode
from trainer.programs.base_source import read_source
from trainer.programs.shell import run_program


def main(arguments: list[str]) -> int:
    """Prepare one base model."""
    if len(arguments) != 2:
        print("usage: python -m trainer.programs.prepare SOURCE_JSON DEST", file=sys.stderr)
        return ExitCode.BAD_INPUT
    source = read_source(Path(arguments[0]))
    if source is None:
        return ExitCode.BAD_INPUT

    def work() -> ExitCode:
        from trainer.engine.models.convert import convert_base

        convert_base(source, Path(arguments[1]))
        return ExitCode.DONE

    return run_program(work, HF_HUB_OFFLINE="0" if source.kind == "hf" else "1")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
